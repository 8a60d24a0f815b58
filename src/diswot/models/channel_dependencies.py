"""Channels of a network that go together, found by the dependency graph of torch-pruning.

Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch_pruning as tp
from torch import Tensor, nn

from diswot.models.subnetworks import Axis, ChannelSlice, CoupledChannels, SizeAttribute
from diswot.models.traceable import traced_outputs
from diswot.models.weighted_layers import HEADS
from diswot.utils.compat import ConvBase

_WIDTHS = ("attn_dim", "all_head_size", "inner_dim", "hidden_dim", "embed_dim", "hidden_size")
_PROJECTIONS = 3  # of the query, the key and the value
_LONGEST = 10.0  # CPU seconds for a group; for some networks torch-pruning finds no end


def coupled_channels(
    model: nn.Module, images: Tensor
) -> tuple[list[CoupledChannels], list[tuple[str, Exception]]]:
    """Return the groups of coupled channels of a network in evaluation mode, without the logits.

    Autograd must be on. The images, B x 3 x S x S, are for one forward pass.

    Returns:
        The groups, and the layers that torch-pruning cannot follow, with its exceptions.

    Raises:
        Exception: torch-pruning cannot trace the network.
    """
    names: dict[Any, str] = {module: name for name, module in model.named_modules()}
    names |= {parameter: name for name, parameter in model.named_parameters()}
    found: list[CoupledChannels] = []
    failed: list[tuple[str, Exception]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = tp.DependencyGraph().build_dependency(
            model, images, output_transform=_logits, verbose=False
        )
        clock = _timed(graph)
        seen: set[Any] = set()
        for layer in [each for each in graph.module2node if isinstance(each, ConvBase | nn.Linear)]:
            if layer not in seen:
                clock.end = time.thread_time() + _LONGEST
                try:
                    group = _group(graph, layer, names)
                except Exception as error:  # torch-pruning may raise anything
                    failed.append((names[layer], error))
                    if isinstance(error, TimeoutError):  # the others would take as long
                        break
                    continue
                writing = [i for i in group if graph.is_out_channel_pruning_fn(i.dep.handler)]
                seen |= {item.dep.target.module for item in writing}
                if _removable(group):
                    found.append(_coupled(graph, group, names, model))
    return found, failed


@dataclass
class _Clock:
    """The CPU time at which torch-pruning must have found a group."""

    end: float = math.inf


class _Timed(list[Any]):
    """A list that raises if it is read after the time of a clock."""

    def __init__(self, values: Iterable[Any], clock: _Clock) -> None:
        super().__init__(values)
        self._clock = clock

    def __iter__(self) -> Iterator[Any]:
        if time.thread_time() > self._clock.end:
            raise TimeoutError(f"no end after {_LONGEST:.0f} s")
        return super().__iter__()


def _timed(graph: Any) -> _Clock:
    """Check a clock at each step from layer to layer in a graph."""
    clock = _Clock()
    for node in graph.module2node.values():
        node.dependencies = _Timed(node.dependencies, clock)
    return clock


def _logits(output: Any) -> list[Tensor]:
    """Return the logits as results of their own, which torch-pruning marks as the outputs."""
    return [each.clone() for each in traced_outputs(output)]


def _removable(group: Any) -> bool:
    """Say whether a group is not that of the logits, and torch-pruning knows each channel."""
    outputs = (item.dep.target.type is tp.ops.OPTYPE.OUTPUT for item in group)
    return not any(outputs) and all(root is not None for item in group for root in item.root_idxs)


def _group(graph: Any, layer: nn.Module, names: dict[Any, str]) -> Any:
    """Return torch-pruning's group of all channels that a layer writes."""
    pruner = graph.get_pruner_of_module(layer)
    channels = list(range(pruner.get_out_channels(layer)))
    group = graph.get_pruning_group(layer, pruner.prune_out_channels, channels)
    return _narrowest(graph, group, names)


def _narrowest(graph: Any, group: Any, names: dict[Any, str]) -> Any:
    """Return a group by its layer with the fewest indices, such as one index for q, k and v."""
    own = [i for i in group if i.dep.target.module in names and _is_layer(i.dep.target.module)]
    least = min(own, key=lambda item: len(item.idxs))
    if len(least.idxs) == len(group[0].idxs):
        return group
    again = graph.get_pruning_group(least.dep.target.module, least.dep.handler, least.idxs)
    first = group[0].dep.target.module
    covers = any(
        item.dep.target.module is first and len(item.idxs) == len(group[0].idxs) for item in again
    )
    return again if covers else group


def _is_layer(module: Any) -> bool:
    return not isinstance(module, nn.Parameter)


def _coupled(graph: Any, group: Any, names: dict[Any, str], model: nn.Module) -> CoupledChannels:
    size = len(group[0].idxs)
    place = {root: i for i, root in enumerate(group[0].root_idxs)}
    items = [item for item in group if item.dep.target.module in names and _fits(item)]
    parts = [_part(item, names, place) for item in items]
    makes = [graph.is_out_channel_pruning_fn(item.dep.handler) for item in items]
    writers = [part for part, made in zip(parts, makes, strict=True) if made]
    attributes = list(_widths(model, writers, size))
    unit = 1
    if (heads := _heads(model, writers, size)) is not None:
        attributes.append(heads)
        unit = heads.unit
        parts += _of_heads(model, heads, size, parts)
    layers = [item.dep.target.module for item in items if _is_layer(item.dep.target.module)]
    owners = tuple(part.axis.owner for part in writers)
    chunks = _chunks(layers, size // unit)
    return CoupledChannels(size, tuple(parts), owners, chunks, unit, tuple(attributes))


def _fits(item: Any) -> bool:
    """Say whether indices are those of the layer or parameter; a bias of positions has others."""
    target = item.dep.target
    return _is_layer(target.module) or max(item.idxs) < target.module.shape[target.pruning_dim]


def _part(item: Any, names: dict[Any, str], place: dict[int, int]) -> ChannelSlice:
    indices: list[list[int]] = [[] for _ in place]
    for index, root in zip(item.idxs, item.root_idxs, strict=True):
        indices[place[root]].append(index)
    target, name = item.dep.target, names[item.dep.target.module]
    if _is_layer(target.module):
        axis = Axis(name, remove=item.dep.handler)
    else:
        owner, _, parameter = name.rpartition(".")
        axis = Axis(owner, parameter, dim=target.pruning_dim)
    return ChannelSlice(axis, tuple(map(tuple, indices)))


def _chunks(layers: Iterable[nn.Module], size: int) -> int:
    """Return the number of chunks that layers need to stay equally large."""
    counts = [1]
    for layer in layers:
        if isinstance(layer, ConvBase) and layer.groups != layer.out_channels:
            counts.append(layer.groups)
        elif isinstance(layer, nn.GroupNorm):
            counts.append(layer.num_groups)
        elif isinstance(layer, nn.MultiheadAttention):
            counts.append(layer.num_heads)
    return max(count for count in counts if size % count == 0)


def _widths(
    model: nn.Module, writers: Iterable[ChannelSlice], size: int
) -> Iterator[SizeAttribute]:
    """Yield the attributes with the number of channels, of the modules around their writers."""
    around = {p.axis.owner if p.axis.parameter else _parent(p.axis.owner) for p in writers}
    for owner in sorted(around):
        module = model.get_submodule(owner)
        names = (name for name in _WIDTHS if getattr(module, name, None) == size)
        yield from (SizeAttribute(owner, name) for name in names)


def _heads(model: nn.Module, writers: Iterable[ChannelSlice], size: int) -> SizeAttribute | None:
    """Return the number of heads, if a group holds queries, keys and values; else None."""
    linear = [w for w in writers if isinstance(model.get_submodule(w.axis.owner), nn.Linear)]
    found = {_heads_around(model, part.axis.owner) for part in linear}
    if len(found) != 1 or sum(len(part.indices[0]) for part in linear) != _PROJECTIONS:
        return None
    (attribute,) = found
    count = getattr(model.get_submodule(attribute.owner), attribute.name) if attribute else 0
    if attribute is None or size % count:
        return None
    return replace(attribute, unit=size // count)


def _heads_around(model: nn.Module, name: str) -> SizeAttribute | None:
    """Return the number of heads of the innermost module around a layer that has one."""
    while name:
        name = _parent(name)
        module = model.get_submodule(name)
        for attribute in HEADS:
            count = getattr(module, attribute, None)
            if isinstance(count, int) and count > 0:
                return SizeAttribute(name, attribute)
    return None


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


def _of_heads(
    model: nn.Module, heads: SizeAttribute, size: int, parts: Iterable[ChannelSlice]
) -> Iterator[ChannelSlice]:
    """Yield the attention's own parameters with one entry a head, such as biases of positions."""
    taken = {(part.axis.owner, part.axis.parameter) for part in parts}
    indices = tuple((i // heads.unit,) * (i % heads.unit == 0) for i in range(size))
    for name, parameter in model.get_submodule(heads.owner).named_parameters(recurse=False):
        dims = [d for d, length in enumerate(parameter.shape) if length == size // heads.unit]
        if len(dims) == 1 and (heads.owner, name) not in taken:
            yield ChannelSlice(Axis(heads.owner, name, dim=dims[0]), indices)
