"""The entropy of the maps that end the stages, as a baseline for dense prediction.

Letters: B images, C channels, H x W positions.
"""

from __future__ import annotations

import copy
import math

import torch

from diswot.errors import UserError
from diswot.observation.hooks import run
from diswot.observation.modes import measuring
from diswot.observation.observe import given_layers, named_maps
from diswot.proxies import passes
from diswot.proxies.candidate import Candidate

WEIGHTS = (1, 1, 6)  # of the last three stages; earlier stages have the weight 0
_IMAGES = 4


def stage_entropy(candidate: Candidate) -> float:
    """Return sum_i w_i log sigma_i, sigma_i the deviation of the map that ends stage i.

    Sun et al., "MAE-DET: Revisiting Maximum Entropy Principle in Zero-Shot NAS for Efficient Object
    Detection", ICML 2022, with the weights 0:0:1:1:6: the last stage has 6, the two before it 1.
    The logarithm of the deviation is the differential entropy of a normal map, in nats, up to a
    constant. The input is N(0, 1), and normalisation layers are removed, as they would hide how the
    layers enlarge the deviation.

    Unlike there, residual connections and gates stay, and the computation is in float64 instead of
    in steps that are scaled. Of a dense network the stages are those of the encoder, of a detector
    those of the backbone before its pyramid. Those that the network names itself come first.

    A network of fewer than three stages, such as a plain transformer, has fewer terms.

    Raises:
        UserError: The network has no feature map.
    """
    images, labels = candidate.batch
    model = copy.deepcopy(candidate.student).double()
    shape = (min(_IMAGES, len(images)), *images.shape[1:])
    noise = torch.randn(shape, generator=candidate.generator(), dtype=torch.float64)
    noise = noise.to(images.device)
    with torch.no_grad(), measuring(model), passes.without_norms(model):
        trace = run(model, noise, given_layers(model), copy=True, targets=labels[:_IMAGES])
    stages = [each.map for each in trace.stage_maps if not each.after_pooling]
    maps = (named_maps(trace)[0] or stages)[-len(WEIGHTS) :]
    if not maps:
        raise UserError("stage_entropy needs a network with a feature map")
    deviations = [float(each.std(correction=0)) for each in maps]
    weighted = zip(reversed(WEIGHTS), reversed(deviations), strict=False)
    return sum(weight * _log(sigma) for weight, sigma in weighted)


def _log(sigma: float) -> float:
    return math.log(sigma) if sigma else -math.inf
