"""The four parts of AZ-NAS. Lee and Ham, CVPR 2024, arXiv 2403.19232.

`blocks` defines which modules are primary blocks; only blocks whose output is a map of the images
count. The paper adds the logarithms of a candidate's relative ranks under the four parts. A rank
needs all candidates, so it is computed where they are compared, not here.

Letters: B images, C channels, H x W positions.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import pad, pixel_unshuffle

from diswot.errors import UserError
from diswot.proxies import passes, size
from diswot.proxies.blocks import map_of
from diswot.proxies.candidate import Candidate
from diswot.proxies.eigen import spectral_norm
from diswot.proxies.recorders import BlockEntropies

complexity = size.macs


def expressivity(candidate: Candidate) -> float:
    """Return the sum over blocks of the entropy of the map's principal components, in nats.

    The entropy is that of the normalised eigenvalues of the channels' covariance over all positions
    of all images: the more evenly the variance is spread, the higher.

    Raises:
        UserError: No block gives a map.
    """
    values = candidate.recorded(BlockEntropies).values
    _check_blocks(len(values), 1)
    return math.fsum(values)


def progressivity(candidate: Candidate) -> float:
    """Return the smallest gain in entropy from one block to the next, in nats; see `expressivity`.

    Raises:
        UserError: Fewer than two blocks give a map.
    """
    values = candidate.recorded(BlockEntropies).values
    _check_blocks(len(values), 2)
    return min(after - before for before, after in pairwise(values))


def trainability(candidate: Candidate) -> float:
    """Return the mean over blocks, from the second, of 2 - s - 1/s, s the Jacobian's spectral norm.

    The score is 0 at most; it is 0 if each block keeps the size of gradients. A block counts as a
    matrix that maps channels to channels at each position. Its transpose is estimated by the mean
    over positions and images of g v^T. v are random signs at the block's output, and g is the
    gradient of v . output in the output of the block before. If the block shrinks the grid, each
    square of positions that becomes one is moved into the channels of g, padded with zeros if
    needed; that is as in the published code, and the paper does not say. A block that does not
    depend on the one before, as in parallel branches, is left out.

    Raises:
        UserError: No two successive blocks give a map and depend on one another.
    """
    model, images = candidate.network, candidate.images
    random = candidate.generator()
    with passes.differentiating(model):
        outputs = passes.block_outputs(model, images)
        _check_blocks(len(outputs), 2)
        norms = [_spectral_norm(*pair, images, random) for pair in pairwise(outputs)]
    scores = [2 - s - 1 / s if s else -math.inf for s in norms if s is not None]
    _check_blocks(len(scores), 1)
    return math.fsum(scores) / len(scores)


def _spectral_norm(
    before: Tensor, after: Tensor, images: Tensor, random: torch.Generator
) -> float | None:
    """Return the norm of one block's Jacobian; None if the block does not depend on the one before.

    `before` and `after` are the outputs of the block before and of the block.
    """
    signs = torch.randint(0, 2, after.shape, generator=random).to(after) * 2 - 1
    if not (after.requires_grad and before.requires_grad):
        return None
    (slope,) = torch.autograd.grad(after, before, signs, retain_graph=True, allow_unused=True)
    if slope is None:
        return None
    v, g = map_of(signs, images), map_of(slope, images)
    assert v is not None and g is not None
    rows = _fold(g, v.shape[2], v.shape[3]).movedim(1, -1).flatten(0, -2)
    columns = v.movedim(1, -1).flatten(0, -2)
    return spectral_norm(rows.T @ columns / len(rows))


def _fold(features: Tensor, height: int, width: int) -> Tensor:
    """Move squares of positions into the channels until the grid is `height` x `width`."""
    rows, columns = features.shape[2:]
    factor = max(math.ceil(rows / height), math.ceil(columns / width))
    padding = (0, factor * width - columns, 0, factor * height - rows)
    return pixel_unshuffle(pad(features, padding), factor)


def _check_blocks(found: int, needed: int) -> None:
    if found < needed:
        raise UserError("too few of the model's blocks, in a row, give a map of the images")
