"""How many layers stand on the shortest path through a block.

Letters: L layers on a path.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from diswot.observation.observe import measuring
from diswot.proxies.blocks import layers
from diswot.proxies.passes import without_norms

_SCALE = 1e-4  # of each layer: a path with one layer more counts that much less


@dataclass(frozen=True)
class Call:
    """A block, and what it was called with.

    Attributes:
        block: The module.
        shape: Of one image's input, 1 x ...
        others: Further positional arguments.
        named: Keyword arguments.
    """

    block: nn.Module
    shape: tuple[int, ...]
    others: Sequence[Any] = ()
    named: Mapping[str, Any] = field(default_factory=dict)


def shortest_path(call: Call) -> int:
    """Least number of convolutions and linear layers between a block's input and its output.

    0 where there is a shortcut. A copy of the block gets equal, positive weights, no biases, no
    normalisation, and a factor s behind each layer, so that ones at its input give
    f(s) = sum over paths of c s^L at its output; as s goes to 0, d log f / d log s goes to the
    smallest L, which it is rounded to. A block through which nothing comes has 0.
    """
    block = copy.deepcopy(call.block).double()
    scale = torch.full((), _SCALE, dtype=torch.float64, requires_grad=True)

    def weaken(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        return output * scale

    for layer in layers(block):
        _level(layer)
        layer.register_forward_hook(weaken)
    device = next((p.device for p in block.parameters()), torch.device("cpu"))
    ones = torch.ones(call.shape, dtype=torch.float64, device=device)
    with measuring(block), torch.enable_grad(), without_norms(block):
        output = block(ones, *call.others, **call.named)
        flow = (output[0] if isinstance(output, tuple) else output).sum()
    if not flow.requires_grad or not flow > 0:
        return 0
    (slope,) = torch.autograd.grad(flow, scale, allow_unused=True, materialize_grads=True)
    return round(float(slope) / float(flow.detach()) * _SCALE)


def _level(layer: nn.Module) -> None:
    """Weights that average their inputs."""
    with torch.no_grad():
        for parameter in layer.parameters(recurse=False):
            parameter.fill_(1 / parameter[0].numel() if parameter.ndim > 1 else 0)
