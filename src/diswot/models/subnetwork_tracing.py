"""Which blocks and channels of a network can be removed: traced once, and tried out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from diswot.errors import UserError
from diswot.models.block_runs import BlockRun, block_runs
from diswot.models.channel_dependencies import coupled_channels
from diswot.models.subnetworks import SHARES, CoupledChannels, PrunableStage, SubNetworks, cut
from diswot.models.traceable import traceable, traced_outputs
from diswot.models.weightless import Weightless
from diswot.utils.optional_imports import reason

_log = logging.getLogger("diswot")

_NARROWER = SHARES[:-1]


def sub_networks(build: Callable[[], nn.Module], img_size: int, name: str) -> SubNetworks:
    """Find the stages of a network, and the blocks and channels that can be removed from each.

    The network is traced on the meta device, or if that fails on the CPU. A line of the log says
    which channels cannot be removed.

    Raises:
        UserError: The network cannot be traced, or nothing can be removed.
    """
    with ThreadPoolExecutor(1) as thread:  # there the caller's device and gradient mode are off
        try:
            return thread.submit(_traced, build, img_size, name, "meta").result()
        except Exception:  # a network may need values, and raise anything without
            return thread.submit(_traced, build, img_size, name, "cpu").result()


def _traced(build: Callable[[], nn.Module], size: int, name: str, device: str) -> SubNetworks:
    def made() -> nn.Module:
        with Weightless() if device == "meta" else nullcontext():
            return traceable(build()).eval().requires_grad_()

    with torch.random.fork_rng(devices=[]), torch.device(device):
        model, images = made(), torch.zeros(2, 3, size, size)
        try:
            shapes = _run(model, images)
        except _Failed as error:
            raise UserError(f"{name} cannot run on images of {size} pixels: {error}") from error
        runs = block_runs(model, images)
        try:
            groups, failed = coupled_channels(model, images)
        except Exception as error:  # torch-pruning may raise anything
            groups, failed = [], [("it", error)]
        whys = [f"torch-pruning cannot follow {layer}: {reason(why)}" for layer, why in failed]
        return _Checker(made, images, shapes, name).checked(_stages(model, runs, groups), whys)


def _stages(
    model: nn.Module, runs: Sequence[BlockRun], groups: Sequence[CoupledChannels]
) -> SubNetworks:
    """Give each group to the first stage that writes it, or else to the stem or to the head.

    What only layers between two stages write keeps its width.
    """
    if not runs:
        return (PrunableStage("1", None, tuple(groups)),)
    order = {name: place for place, (name, _) in enumerate(model.named_modules())}
    first, last = order[runs[0].blocks[0]], order[runs[-1].blocks[-1]]
    numbered = {str(number): run for number, run in enumerate(runs, 1)}
    found: dict[str, BlockRun | None] = {"stem": None, **numbered, "head": None}
    own: dict[str, list[CoupledChannels]] = {name: [] for name in found}
    for group in groups:
        writing = (name for name, run in numbered.items() if any(map(run.holds, group.writers)))
        places = [order[writer] for writer in group.writers]
        outside = "stem" if max(places) < first else "head" if min(places) > last else None
        if (name := next(writing, outside)) is not None:
            own[name].append(group)
    return tuple(
        PrunableStage(name, run, tuple(own[name]), len(run.blocks) if run else 1)
        for name, run in found.items()
        if run or own[name]
    )


def _in_block(name: str, stage: PrunableStage) -> str:
    """Return the name of a layer inside its block; layers outside of blocks keep their name."""
    blocks = stage.run.blocks if stage.run else ()
    inside = (name.removeprefix(f"{block}.") for block in blocks if name.startswith(f"{block}."))
    return next(inside, name)


class _Failed(Exception):
    """A network that does not run, with the module."""


def _run(model: nn.Module, images: Tensor) -> list[tuple[int, ...]]:
    """Return the shapes of the outputs that stay.

    Raises:
        _Failed: The network raises anything.
    """
    running: list[str] = []
    names = {module: name for name, module in model.named_modules()}

    def begin(module: nn.Module, _: object) -> None:
        running.append(names[module])

    def end(*_: object) -> None:
        running.pop()

    with ExitStack() as hooks, torch.no_grad():
        for module in names:
            hooks.enter_context(module.register_forward_pre_hook(begin))
            hooks.enter_context(module.register_forward_hook(end))
        try:
            outputs = traced_outputs(model(images))
        except Exception as error:  # a network may raise anything
            place = running[-1] if running and running[-1] else "the network"
            raise _Failed(f"{place}: {reason(error)}") from error
    return [tuple(output.shape) for output in outputs]


@dataclass(frozen=True)
class _Checker:
    """Checks which sub-networks run.

    Attributes:
        build: Function that builds the network in evaluation mode.
        images: Images, 2 x 3 x S x S.
        shapes: Shapes of the outputs that stay.
        name: Name of the network, for messages.
    """

    build: Callable[[], nn.Module]
    images: Tensor
    shapes: list[tuple[int, ...]]
    name: str

    def checked(self, found: SubNetworks, whys: Sequence[str]) -> SubNetworks:
        """Return the sub-networks as they were traced without what cannot be removed.

        `whys` are what could not be traced.

        Raises:
            UserError: Nothing can be removed.
        """
        whys = list(whys)
        if self._failure(found):
            found = self._shortened(found, whys)
        if any(self._failure(found, share) for share in _NARROWER):
            found = self._narrowed(found, whys)
        more = f" (and {len(whys) - 1} more)" if len(whys) > 1 else ""
        if not any(stage.depth > 1 or stage.coupled for stage in found):
            why = whys[0] + more if whys else "it repeats no blocks, and no channels can be removed"
            raise UserError(f"{self.name}: nothing can be removed: {why}")
        if whys:
            _log.warning("%s: some parts keep their size: %s%s", self.name, whys[0], more)
        for share in _NARROWER:
            if failure := self._failure(found, share):
                raise UserError(f"{self.name}: torch-pruning cannot narrow it: {failure}")
        return found

    def _shortened(self, found: SubNetworks, whys: list[str]) -> SubNetworks:
        """Keep all blocks of stages that do not run with one block."""
        stages = []
        for stage in found:
            why = self._failure((stage,))
            whys += [f"the blocks of {stage.run.container}, {why}"] if stage.run and why else []
            stages.append(replace(stage, run=None, depth=1) if why else stage)
        return tuple(stages)

    def _narrowed(self, found: SubNetworks, whys: list[str]) -> SubNetworks:
        """Keep all channels of the groups that do not run with the least share."""
        stages = []
        for stage in found:
            kinds: dict[str, list[CoupledChannels]] = {}
            for group in stage.coupled:
                kinds.setdefault(_in_block(group.writers[0], stage), []).append(group)
            left: list[CoupledChannels] = []
            for groups in kinds.values():
                alone = replace(stage, coupled=tuple(groups))
                if why := self._failure((alone,), _NARROWER[0]):
                    whys.append(f"torch-pruning cannot narrow {groups[0].writers[0]}, {why}")
                else:
                    left += groups
            stages.append(replace(stage, coupled=tuple(left)))
        return tuple(stages)

    def _failure(self, found: SubNetworks, share: float = 1.0) -> str:
        """Say why the sub-network with one block and a share of each stage fails; else nothing."""
        count = len(found)
        try:
            model = cut(found, self.build(), [1] * count, [share] * count)
        except Exception as error:  # torch-pruning may raise anything
            return reason(error)
        try:
            shapes = _run(model, self.images)
        except _Failed as error:
            return str(error)
        changed = (own for own, kept in zip(shapes, self.shapes, strict=True) if own != kept)
        shape = next(changed, None)
        return "" if shape is None else f"the logits have the shape {shape}"
