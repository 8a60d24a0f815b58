"""Sub-networks of a network: fewer blocks and fewer channels in each of its stages.

The network is traced once. Then each sub-network is cut out of a network of the same structure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from diswot.models.block_runs import BlockRun
from diswot.models.correspondence import at_even_depth

Remove = Callable[[nn.Module, list[int]], Any]

SHARES = (0.25, 0.5, 0.75, 1.0)


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


@dataclass(frozen=True)
class PrunableStage:
    """A stage of a network, its stem or its head, and what can be removed from it.

    Attributes:
        name: Its number from 1, `stem` or `head`.
        run: Its blocks; None for stem and head, and if the network repeats no blocks and is one
            stage.
        coupled: Groups of channels that its layers write.
        depth: Number of blocks.
    """

    name: str
    run: BlockRun | None
    coupled: tuple[CoupledChannels, ...]
    depth: int = 1

    @cached_property
    def removed(self) -> dict[float, list[tuple[Axis, list[int]]]]:
        """The indices that each share removes from each axis."""
        return {share: list(self._removed(share)) for share in SHARES if share < 1}

    def _removed(self, share: float) -> Iterator[tuple[Axis, list[int]]]:
        for group in self.coupled:
            gone = sorted(set(range(group.size)) - set(group.kept(share)))
            for part in group.parts:
                yield part.axis, [index for channel in gone for index in part.indices[channel]]

    @cached_property
    def sizes(self) -> dict[float, list[tuple[SizeAttribute, int]]]:
        """The value that each size attribute takes at each share below 1."""
        return {share: list(self._sizes(share)) for share in SHARES if share < 1}

    def _sizes(self, share: float) -> Iterator[tuple[SizeAttribute, int]]:
        for group in self.coupled:
            count = len(group.kept(share))
            yield from ((each, count // each.unit) for each in group.attributes)


SubNetworks = tuple[PrunableStage, ...]  # of one network: its stages in order, with stem and head


def cut(
    found: SubNetworks, model: nn.Module, depths: Sequence[int], shares: Sequence[float]
) -> nn.Module:
    """Cut a sub-network out of a network; the kept channels keep their weights.

    Blocks are kept by `at_even_depth`, and channels by `CoupledChannels.kept`. With full depths
    and shares the network is returned as it is.

    Args:
        found: All sub-networks.
        model: Network of the structure that was traced. It is changed in place.
        depths: Number of blocks of each stage.
        shares: Share of the channels of each stage, one of `SHARES`.
    """
    modules = dict(model.named_modules())
    for stage, depth in zip(found, depths, strict=True):
        if stage.run is not None:
            _shorten(modules, stage.run, depth)
    alive = set(model.modules())
    removed: dict[Axis, set[int]] = {}
    for stage, share in zip(found, shares, strict=True):
        for axis, indices in stage.removed.get(share, ()):
            if modules[axis.owner] in alive:
                removed.setdefault(axis, set()).update(indices)
        for attribute, size in stage.sizes.get(share, ()):
            setattr(modules[attribute.owner], attribute.name, size)
    with torch.no_grad(), torch.device("cpu"):
        for axis, gone in removed.items():
            axis.cut(modules[axis.owner], gone)
    return model


def _shorten(modules: dict[str, nn.Module], run: BlockRun, depth: int) -> None:
    """Remove blocks of a run from their sequence, which numbers the others anew."""
    places = (at_even_depth(place, depth, len(run.blocks)) for place in range(depth))
    kept = {modules[run.blocks[place]] for place in places}
    gone = {modules[name] for name in run.blocks} - kept
    sequence = modules[run.container]
    assert isinstance(sequence, nn.Sequential | nn.ModuleList)
    for place, block in reversed(list(enumerate(sequence))):
        if block in gone:
            del sequence[place]
