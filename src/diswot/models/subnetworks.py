"""Sub-networks of a network: fewer blocks and fewer channels in each of its stages.

The network is traced once. Then each sub-network is cut out of a network of the same structure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from diswot.models.block_runs import BlockRun
from diswot.models.correspondence import at_even_depth
from diswot.models.coupled import Axis, CoupledChannels, SizeAttribute

SHARES = (0.25, 0.5, 0.75, 1.0)


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
