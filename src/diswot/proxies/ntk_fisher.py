"""Scores from the spectra of the neural tangent kernel and of the Fisher information.

Both need a backward or a forward-mode pass for each row of a Jacobian, so they use the first 16
images of the batch.

Letters: B images, K classes, P weights.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Generator, Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from diswot.errors import UserError
from diswot.observation.modes import measuring
from diswot.observation.rows import logits_of
from diswot.proxies import passes
from diswot.proxies.blocks import weights
from diswot.proxies.candidate import Candidate
from diswot.proxies.eigen import eigenvalues, spectral_entropy

_IMAGES = 16
_MOST_WEIGHTS = 128  # of vkdnw
_DECILES = tuple(decile / 10 for decile in range(1, 10))


def ntk_cond(candidate: Candidate) -> float:
    """Return minus the condition number of the neural tangent kernel.

    TE-NAS, Chen et al., ICLR 2021: the largest eigenvalue of J J^T over the smallest, where the row
    of an image in J is the gradient of the sum of its logits in all weights.

    If the kernel is singular to the precision of the gradients, the score is minus infinity. With
    batch statistics, that is so for each network with a batch normalisation right before its
    classifier, since its outputs sum to a constant.
    """
    model, images = candidate.network, candidate.images[:_IMAGES]
    parameters = list(weights(model).values())
    with passes.differentiating(model):
        outputs = logits_of(model(images)).flatten(1).sum(1)
        rows = [passes.gradients(z, parameters, keep_graph=True) for z in outputs]
    parts = (torch.stack(part).flatten(1).double() for part in zip(*rows, strict=True))
    values = eigenvalues(torch.stack([part @ part.T for part in parts]).sum(0))
    noise = len(values) * torch.finfo(images.dtype).eps * values[-1]
    return -math.inf if values[0] <= noise else -float(values[-1] / values[0])


def vkdnw(candidate: Candidate) -> float:
    """Return the entropy of the deciles of the Fisher information's spectrum, in nats.

    Variance of knowledge of deep network weights: Tybl and Neumann, CVPR 2025, arXiv 2502.04975.
    The Fisher information F, P x P, is the mean over images of sum_k p_k d_k d_k^T. p is the
    softmax of the logits, d_k the gradient of log p_k in P weights: one weight of each trainable
    matrix or kernel, drawn uniformly from the candidate's seed, of 128 evenly spaced matrices at
    most. With l_1 to l_9 the deciles of F's eigenvalues (linearly interpolated), divided by their
    sum, the score is -sum_i l_i log l_i. The more equally well the weights can be estimated, the
    higher. The paper's VKDNW_single adds the number of layers: `depth` + `vkdnw`; its code counts
    parameter tensors. The score is zero if F is zero.

    The published code differs. It takes the first entry of each parameter, biases and normalisation
    too. It uses running statistics in place of the batch's, and draws weights as the initialisation
    `kaiming` does. It mixes the softmax with 5 % of the uniform distribution, which a saturated
    softmax may need. Here F is exact.

    Raises:
        UserError: The targets are those of pixels, or boxes.
    """
    if candidate.batch.labels.ndim > 1:
        raise UserError("vkdnw needs one label an image")
    model, images = candidate.student, candidate.batch.images[:_IMAGES]
    chosen = _draw(weights(model), candidate.generator())
    with measuring(model), _forward_mode():
        shares = model(images).double().softmax(1)
        slopes = [_logit_slopes(model, images, *place) for place in chosen]
    values = eigenvalues(fisher_information(torch.stack(slopes).double(), shares)).clamp_min(0)
    return spectral_entropy(torch.quantile(values, values.new_tensor(_DECILES)))


def fisher_information(slopes: Tensor, shares: Tensor) -> Tensor:
    """Return the Fisher information of a softmax, P x P.

    Args:
        slopes: Derivatives of the logits in the weights, P x B x K.
        shares: Softmax of the logits, B x K.
    """
    centred = slopes - (slopes * shares).sum(2, keepdim=True)
    rows = (centred * shares.sqrt()).flatten(1)
    return rows @ rows.T / len(shares)


def _draw(
    parameters: dict[str, nn.Parameter], random: Generator
) -> Iterator[tuple[str, Tensor, int]]:
    """Draw one entry of each parameter: the parameter's name and value, and the entry's index."""
    names = list(parameters)
    step = max(1, len(names) / _MOST_WEIGHTS)
    for turn in range(min(len(names), _MOST_WEIGHTS)):
        name = names[int(turn * step)]
        weight = parameters[name].detach()
        yield name, weight, int(torch.randint(weight.numel(), (), generator=random))


@contextmanager
def _forward_mode() -> Iterator[None]:
    """Turn backward gradients off, and select attention with forward differentiation.

    A warning of torch about how it loads its own rules is suppressed.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit.script.*")
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)


def _logit_slopes(
    model: nn.Module, images: Tensor, name: str, weight: Tensor, index: int
) -> Tensor:
    """Return the derivative of the logits in one entry of one weight, B x K, in forward mode."""
    direction = weight.new_zeros(weight.shape)
    direction.view(-1)[index] = 1
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(weight, direction)  # type: ignore[no-untyped-call]
        logits = functional_call(model, {name: dual}, (images,))
        primal, tangent = forward_ad.unpack_dual(logits)  # type: ignore[no-untyped-call]
    return torch.zeros_like(primal) if tangent is None else tangent
