"""Synaptic flow: the output of a network whose weights are all positive."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from diswot.errors import UserError
from diswot.observation.modes import hooked
from diswot.observation.rows import logits_of
from diswot.proxies import passes
from diswot.proxies.blocks import primary_blocks, weights
from diswot.proxies.candidate import Candidate


def synflow(candidate: Candidate) -> float:
    """Return log of the sum over weights of |w dR/dw|, R the sum of logits of an image of ones.

    Tanaka et al., NeurIPS 2020, with each parameter replaced by its absolute value and biases by
    zero, summed as in Abdelfattah et al., ICLR 2021. As there, normalisation is removed with its
    scale. The weights are matrices and kernels (`blocks.weights`). If the output does not depend on
    the input, the score is minus infinity.

    The computation is in float64. If that overflows, the output of each primary block is divided by
    a power of two, which is added to the logarithm again. In a network of ReLUs that is a sequence
    of blocks this changes nothing; it is checked that the result does not depend on the powers.

    Raises:
        UserError: The result depends on the powers, as with deep attention.
    """
    model = candidate.network
    ones = torch.ones_like(candidate.images[:1], dtype=torch.float64)
    state = _positive(model)
    with passes.differentiating(model), passes.without_norms(model):
        flow = _log_flow(model, state, ones)
        if math.isfinite(flow) or flow == -math.inf:
            return flow
        flow, check = (_scaled_log_flow(model, state, ones, extra) for extra in (0, 1))
    if not math.isclose(flow, check, rel_tol=1e-9):
        raise UserError(
            "synflow overflows, and the blocks' outputs are not in proportion to inputs"
        )
    return flow


def _positive(model: nn.Module) -> dict[str, Tensor]:
    """Return absolute parameters and buffers in float64, biases zero, weights with gradients."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    state = {n: t.detach().double().abs() for n, t in tensors.items() if t.is_floating_point()}
    for name, tensor in state.items():
        if name.endswith("bias"):
            tensor.zero_()
    for name in weights(model):
        state[name].requires_grad_()
    return state


def _log_flow(model: nn.Module, state: Mapping[str, Tensor], ones: Tensor) -> float:
    leaves = [tensor for tensor in state.values() if tensor.requires_grad]
    flow = logits_of(functional_call(model, dict(state), (ones,))).sum()
    if not flow.requires_grad:
        return -math.inf
    slopes = passes.gradients(flow, leaves)
    pairs = zip(leaves, slopes, strict=True)
    total = sum(float((w.detach() * g).abs().sum()) for w, g in pairs)
    return math.log(total) if total else -math.inf


def _scaled_log_flow(
    model: nn.Module, state: Mapping[str, Tensor], ones: Tensor, extra: int
) -> float:
    """Return the log flow with each block's output scaled to a maximum of 1 to 2, over 2^extra."""
    powers: list[int] = []

    def shrink(module: nn.Module, inputs: object, output: object) -> object:
        if not isinstance(output, Tensor) or not 0 < output.detach().max() < math.inf:
            return output
        powers.append(math.frexp(float(output.detach().max()))[1] - 1 + extra)
        return output * 2.0 ** -powers[-1]

    with hooked(primary_blocks(model), shrink):
        return _log_flow(model, state, ones) + sum(powers) * math.log(2)
