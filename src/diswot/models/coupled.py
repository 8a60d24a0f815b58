"""Channels of a network that are removed together, and their removal."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

Remove = Callable[[nn.Module, list[int]], Any]


@dataclass(frozen=True)
class Axis:
    """One axis of a layer or of a parameter, along which it has channels.

    Attributes:
        owner: Name of the layer, or of the module that has the parameter.
        parameter: Name of the parameter in its module; empty for a layer.
        remove: torch-pruning's function that removes indices from the layer; None for a parameter.
        dim: Dimension of the parameter.
    """

    owner: str
    parameter: str = ""
    remove: Remove | None = None
    dim: int = -1

    def cut(self, module: nn.Module, indices: Iterable[int]) -> None:
        """Remove indices, each once, from the layer or the parameter of the module `owner`."""
        gone = sorted(indices)
        if self.remove is not None:
            trained = {name: p.requires_grad for name, p in module.named_parameters()}
            self.remove(module, gone)
            for name, p in module.named_parameters():
                p.requires_grad_(trained[name])
            return
        old = module.get_parameter(self.parameter)
        left = torch.tensor(sorted(set(range(old.shape[self.dim])) - set(gone)), device=old.device)
        new = nn.Parameter(old.index_select(self.dim, left), old.requires_grad)
        setattr(module, self.parameter, new)


@dataclass(frozen=True)
class ChannelSlice:
    """The channels of a group along one axis.

    Attributes:
        axis: The axis.
        indices: For each channel of the group, its indices there.
    """

    axis: Axis
    indices: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class SizeAttribute:
    """An attribute of a module that holds the number of channels of a group, or of its heads.

    Attributes:
        owner: Name of the module.
        name: Name of the attribute.
        unit: Number of channels that count as one: the features of a head, or 1.
    """

    owner: str
    name: str
    unit: int = 1


@dataclass(frozen=True)
class CoupledChannels:
    """Channels that are removed together, from all layers that write or read them.

    Attributes:
        size: Number of channels.
        parts: Where the channels are.
        writers: Names of the layers that write or scale them; a parameter's module for a parameter.
        chunks: Number of chunks that must stay equally large, such as those of a grouped
            convolution.
        unit: Number of adjacent channels that stay together, such as the features of a head.
        attributes: Attributes of modules that hold the size.
    """

    size: int
    parts: tuple[ChannelSlice, ...]
    writers: tuple[str, ...]
    chunks: int = 1
    unit: int = 1
    attributes: tuple[SizeAttribute, ...] = ()

    def kept(self, share: float) -> list[int]:
        """List the channels that a share keeps: evenly spaced in each chunk, in whole units.

        At least one unit of each chunk is kept.
        """
        count = self.size // self.chunks // self.unit
        wanted = max(1, round(share * count))
        inner = [i * count // wanted for i in range(wanted)]
        places = (chunk * count + i for chunk in range(self.chunks) for i in inner)
        return [place * self.unit + j for place in places for j in range(self.unit)]
