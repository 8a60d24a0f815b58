"""Stages of a network: runs of like blocks, of which all but the first keep their input's shape."""

from __future__ import annotations

from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from diswot.utils.compat import tree_leaves

SEQUENCES = (nn.Sequential, nn.ModuleList)


@dataclass(frozen=True)
class BlockRun:
    """A run of blocks of one class in a sequence, each the input of the next.

    All blocks but the first return maps of the shape of their input, so the network also runs
    without them.

    Attributes:
        container: Name of the `nn.Sequential` or `nn.ModuleList`.
        blocks: Names of the blocks.
        kind: Class of the blocks.
    """

    container: str
    blocks: tuple[str, ...]
    kind: type[nn.Module]

    def holds(self, name: str) -> bool:
        """Say whether a module or parameter is one of the blocks, or in one."""
        return any(name == block or name.startswith(f"{block}.") for block in self.blocks)


@dataclass(frozen=True)
class _Call:
    """The first tensors that a module took and returned in its only call."""

    taken: Tensor | None
    returned: Tensor | None

    def follows(self, before: _Call) -> bool:
        """Say whether a module takes the output of another one and keeps its shape."""
        shape = None if self.returned is None else self.returned.shape
        return (
            self.taken is not None and self.taken is before.returned and shape == self.taken.shape
        )


def block_runs(model: nn.Module, images: Tensor) -> list[BlockRun]:
    """List the stages of a network in evaluation mode, in the order of its modules.

    A sequence inside a block has no stages. A run of one block is a stage if a longer run has
    blocks of its class.
    """
    calls = _calls(model, images)
    found: list[BlockRun] = []
    for sequences in _by_level(model):
        runs = [
            run
            for name, sequence in sequences
            if not any(run.holds(name) for run in found)
            for run in _runs(name, sequence, calls)
        ]
        kinds = {run.kind for run in [*found, *runs] if len(run.blocks) > 1}
        found += [run for run in runs if run.kind in kinds]
    order = {name: place for place, (name, _) in enumerate(model.named_modules())}
    return sorted(found, key=lambda run: order[run.blocks[0]])


def _by_level(model: nn.Module) -> list[list[tuple[str, nn.Module]]]:
    """List the sequences of a network by the number of modules around them."""
    levels: dict[int, list[tuple[str, nn.Module]]] = defaultdict(list)
    for name, module in model.named_modules():
        if isinstance(module, SEQUENCES):
            levels[name.count(".") + bool(name)].append((name, module))
    return [levels[level] for level in sorted(levels)]


def _runs(name: str, container: nn.Module, calls: dict[str, _Call]) -> list[BlockRun]:
    """Split the children of a sequence into runs; a layer, or a child without a call, ends one."""
    runs: list[list[str]] = []
    kinds: list[type[nn.Module]] = []
    before: _Call | None = None
    for key, child in container.named_children():
        path = f"{name}.{key}".lstrip(".")
        call = calls.get(path)
        if call is not None:
            if before is not None and type(child) is kinds[-1] and call.follows(before):
                runs[-1].append(path)
            else:
                runs.append([path])
                kinds.append(type(child))
        before = call
    return [BlockRun(name, tuple(run), kind) for run, kind in zip(runs, kinds, strict=True)]


def _calls(model: nn.Module, images: Tensor) -> dict[str, _Call]:
    """Record the calls of all modules that may be blocks and are called once."""
    names = {module: name for name, module in model.named_modules() if _may_be_block(module)}
    calls: dict[str, list[_Call]] = defaultdict(list)

    def record(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        calls[names[module]].append(_Call(_first([*args, *kwargs.values()]), _first(output)))

    with ExitStack() as hooks:
        for module in names:
            hooks.enter_context(module.register_forward_hook(record, with_kwargs=True))
        model(images)
    return {name: made[0] for name, made in calls.items() if len(made) == 1}


def _may_be_block(module: nn.Module) -> bool:
    """Say whether a module holds layers; a sequence of modules that hold layers is no block."""
    children = list(module.children())
    deep = isinstance(module, SEQUENCES) and any(list(child.children()) for child in children)
    return bool(children) and not deep


def _first(values: Any) -> Tensor | None:
    return next((leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)), None)
