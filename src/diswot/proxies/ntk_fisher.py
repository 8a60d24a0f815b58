"""Scores from eigenvalues: of the neural tangent kernel, and of the Fisher information.

Letters: B batch, K classes, P weights. Both need a backward or a forward-mode pass for each row of
a Jacobian, so they look at the first 16 images of the batch only.
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

from diswot.observation.observe import measuring
from diswot.proxies import passes
from diswot.proxies.blocks import weights
from diswot.proxies.candidate import Candidate
from diswot.proxies.eigen import eigenvalues, spectral_entropy

_IMAGES = 16
_MOST_WEIGHTS = 128  # of vkdnw
_DECILES = tuple(decile / 10 for decile in range(1, 10))


def ntk_cond(candidate: Candidate) -> float:
    """Minus the condition number of the neural tangent kernel.

    TE-NAS, Chen et al., ICLR 2021: the largest over the smallest eigenvalue of J J^T, where
    the row of an image in J is the gradient of the sum of its logits in all weights. A kernel that
    is singular to the precision of the gradients scores minus infinity, which is its condition
    number's negative and the lowest score; with batch statistics, so does each network that has a
    batch normalisation right before its classifier, for then the outputs sum to a constant.
    """
    model, images = candidate.student, candidate.batch.images[:_IMAGES]
    parameters = list(weights(model).values())
    with passes.differentiating(model):
        outputs = model(images).sum(1)
        rows = [passes.gradients(z, parameters, keep=True) for z in outputs]
    parts = (torch.stack(part).flatten(1).double() for part in zip(*rows, strict=True))
    values = eigenvalues(torch.stack([part @ part.T for part in parts]).sum(0))
    noise = len(values) * torch.finfo(images.dtype).eps * values[-1]
    return -math.inf if values[0] <= noise else -float(values[-1] / values[0])


def vkdnw(candidate: Candidate) -> float:
    """Entropy of the deciles of the spectrum of the Fisher information of one weight a layer.

    Variance of knowledge of deep network weights: Tybl and Neumann, CVPR 2025, arXiv 2502.04975.
    F is the mean over images of sum_k p_k d_k d_k^T, p the softmax of the logits and d_k the
    gradient of log p_k in P weights: one weight of each trainable matrix or kernel, drawn evenly
    from the candidate's seed (of at most 128 matrices, evenly spaced). With l_1 to l_9 the deciles
    of F's eigenvalues (linearly interpolated), divided by their sum, the score is
    -sum_i l_i log l_i: the more alike the weights are in how well they can be estimated, the
    higher. The paper's VKDNW_single adds the number of layers to this: `depth` + `vkdnw` (its code
    counts parameter tensors). Zero where F is zero.

    Where we differ from the published code: it takes the first entry of every parameter, biases
    and normalisation too, with running statistics in place of the batch's, draws weights as the
    initialisation `kaiming` does, and mixes the softmax with 5% of the uniform distribution, which
    a saturated one may need; here F is the exact one.
    """
    model, images = candidate.student, candidate.batch.images[:_IMAGES]
    chosen = _draw(weights(model), candidate.generator())
    with measuring(model), _forward_mode():
        shares = model(images).double().softmax(1)
        slopes = [_logit_slopes(model, images, *place) for place in chosen]
    values = eigenvalues(fisher_information(torch.stack(slopes).double(), shares)).clamp_min(0)
    return spectral_entropy(torch.quantile(values, values.new_tensor(_DECILES)))


def fisher_information(slopes: Tensor, shares: Tensor) -> Tensor:
    """Fisher information of a softmax, P x P.

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
    """A weight of each parameter: its name, its value, and an index into its entries."""
    names = list(parameters)
    step = max(1, len(names) / _MOST_WEIGHTS)
    for turn in range(min(len(names), _MOST_WEIGHTS)):
        name = names[int(turn * step)]
        weight = parameters[name].detach()
        yield name, weight, int(torch.randint(weight.numel(), (), generator=random))


@contextmanager
def _forward_mode() -> Iterator[None]:
    """Forward differentiation only, through attention that has it.

    A warning of torch about how it loads its own rules is kept back.
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
    """Derivative of the logits in one entry of one weight, B x K, in forward mode."""
    direction = weight.new_zeros(weight.shape)
    direction.view(-1)[index] = 1
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(weight, direction)  # type: ignore[no-untyped-call]
        logits = functional_call(model, {name: dual}, (images,))
        primal, tangent = forward_ad.unpack_dual(logits)  # type: ignore[no-untyped-call]
    return torch.zeros_like(primal) if tangent is None else tangent
