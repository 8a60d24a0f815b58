"""The number of layers on the shortest path through a block.

Letters: L layers on a path.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from diswot.observation.modes import measuring
from diswot.proxies.blocks import layers
from diswot.proxies.passes import without_norms

_SCALE = 1e-4  # factor behind each layer: a path with one layer more contributes that much less


@dataclass(frozen=True)
class BlockCall:
    """A block and the arguments of one call.

    Attributes:
        block: The module.
        shape: Shape of the first argument for one image, 1 x ...
        args: Further positional arguments.
        kwargs: Keyword arguments.
    """

    block: nn.Module
    shape: tuple[int, ...]
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


def shortest_path(call: BlockCall) -> int:
    """Count the convolutions and linear layers on the shortest path through a block.

    A copy of the block gets equal positive weights, no biases, no normalisation, and a factor s
    behind each layer. So ones at its input give f(s) = sum over paths of c s^L at its output. As s
    goes to 0, d log f / d log s goes to the smallest L, and is rounded to an integer. It is 0 if
    the block has a shortcut, or if its output is zero.
    """
    block = copy.deepcopy(call.block).double()
    scale = torch.full((), _SCALE, dtype=torch.float64, requires_grad=True)

    def weaken(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        return output * scale

    for layer in layers(block):
        _fill_with_means(layer)
        layer.register_forward_hook(weaken)
    device = next((p.device for p in block.parameters()), torch.device("cpu"))
    ones = torch.ones(call.shape, dtype=torch.float64, device=device)
    with measuring(block), torch.enable_grad(), without_norms(block):
        output = block(ones, *call.args, **call.kwargs)
        flow = (output[0] if isinstance(output, tuple) else output).sum()
    if not flow.requires_grad or not flow > 0:
        return 0
    (slope,) = torch.autograd.grad(flow, scale, allow_unused=True, materialize_grads=True)
    return round(float(slope) / float(flow.detach()) * _SCALE)


def _fill_with_means(layer: nn.Module) -> None:
    """Set weights such that each output is the mean of its inputs, and biases to zero."""
    with torch.no_grad():
        for parameter in layer.parameters(recurse=False):
            parameter.fill_(1 / parameter[0].numel() if parameter.ndim > 1 else 0)
