"""Channels of a network that go together, found by the dependency graph of torch-pruning.

Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn

from diswot.utils.compat import ConvBase, tree_leaves

HEADS = ("num_heads", "num_attention_heads", "n_heads", "heads")
_INNER = ("attn_dim", "all_head_size", "inner_dim")  # heads times width
_PROJECTIONS = 3  # of the query, the key and the value

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
        """Remove indices from the layer or the parameter.

        Args:
            module: The module of the name `owner`.
            indices: Each once.
        """
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
class Part:
    """The channels of a group along one axis.

    Attributes:
        axis: The axis.
        indices: For each channel of the group, its indices there.
    """

    axis: Axis
    indices: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Attention:
    """An attention whose heads are the channels of a group.

    Attributes:
        name: Name of the module that has the number of heads as an attribute.
        heads: Number of heads.
        width: Number of features of each head.
    """

    name: str
    heads: int
    width: int

    def kept(self, share: float) -> int:
        """Return the number of heads that a share keeps."""
        return portion(self.heads, share)

    def narrow(self, module: nn.Module, share: float) -> None:
        """Write the number of kept heads and features into the attributes of the module."""
        for names, width in ((HEADS, 1), (_INNER, self.width)):
            for name in names:
                if getattr(module, name, None) == self.heads * width:
                    setattr(module, name, self.kept(share) * width)


@dataclass(frozen=True)
class CoupledChannels:
    """Channels that are removed together, from all layers that write or read them.

    Attributes:
        size: Number of channels.
        parts: Where the channels are.
        writers: Names of the layers that write or scale them; a parameter's module for a parameter.
        chunks: Number of chunks that must stay equally large, such as those of a grouped
            convolution.
        attention: The attention whose heads the channels are, if there is one.
    """

    size: int
    parts: tuple[Part, ...]
    writers: tuple[str, ...]
    chunks: int = 1
    attention: Attention | None = None

    def kept(self, share: float) -> list[int]:
        """List the channels that a share keeps: evenly spaced, or whole heads evenly spaced.

        Args:
            share: Share of the channels, above 0 to 1. At least one channel or head is kept.
        """
        if self.attention is not None:
            width = self.attention.width
            heads = evenly(self.attention.heads, self.attention.kept(share))
            return [head * width + i for head in heads for i in range(width)]
        length = self.size // self.chunks
        inner = evenly(length, portion(length, share))
        return [chunk * length + i for chunk in range(self.chunks) for i in inner]


def portion(count: int, share: float) -> int:
    """Return a share of a count, rounded, at least 1."""
    return max(1, round(share * count))


def evenly(count: int, kept: int) -> list[int]:
    """List evenly spaced channels: channel i of m is channel i n / m of n, rounded down."""
    return [i * count // kept for i in range(kept)]


def coupled_channels(model: nn.Module, images: Tensor) -> list[CoupledChannels]:
    """List the groups of coupled channels of a network, without the logits.

    Args:
        model: Network in evaluation mode. Autograd must be on.
        images: B x 3 x S x S, for one forward pass.
    """
    graph = tp.DependencyGraph().build_dependency(
        model, images, output_transform=_logits, verbose=False
    )
    names = {module: name for name, module in model.named_modules()}
    names |= {parameter: name for name, parameter in model.named_parameters()}
    groups = (_narrowest(graph, group, names) for group in graph.get_all_groups())
    return [
        _coupled(graph, group, names, model)
        for group in groups
        if all(item.dep.target.type is not tp.ops.OPTYPE.OUTPUT for item in group)
        and all(root is not None for item in group for root in item.root_idxs)
    ]


def _logits(output: Any) -> Tensor:
    """Return the logits as a result of their own, which torch-pruning marks as the output."""
    return next(leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)).clone()


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
    attention = _attention(model, writers, size)
    if attention is not None:
        parts += _of_heads(model, attention, parts)
    layers = [item.dep.target.module for item in items if _is_layer(item.dep.target.module)]
    owners = tuple(part.axis.owner for part in writers)
    return CoupledChannels(size, tuple(parts), owners, _chunks(layers, size), attention)


def _fits(item: Any) -> bool:
    """Say whether indices are those of the layer or parameter; a bias of positions has others."""
    target = item.dep.target
    return _is_layer(target.module) or max(item.idxs) < target.module.shape[target.pruning_dim]


def _part(item: Any, names: dict[Any, str], place: dict[int, int]) -> Part:
    indices: list[list[int]] = [[] for _ in place]
    for index, root in zip(item.idxs, item.root_idxs, strict=True):
        indices[place[root]].append(index)
    target, name = item.dep.target, names[item.dep.target.module]
    if _is_layer(target.module):
        axis = Axis(name, remove=item.dep.handler)
    else:
        owner, _, parameter = name.rpartition(".")
        axis = Axis(owner, parameter, dim=target.pruning_dim)
    return Part(axis, tuple(map(tuple, indices)))


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


def _attention(model: nn.Module, writers: Sequence[Part], size: int) -> Attention | None:
    """Return the attention of which a group holds the queries, keys and values; else None."""
    linear = [w for w in writers if isinstance(model.get_submodule(w.axis.owner), nn.Linear)]
    owners = {_owner(model, part.axis.owner) for part in linear}
    if len(owners) != 1 or sum(len(part.indices[0]) for part in linear) != _PROJECTIONS:
        return None
    (owner,) = owners
    heads = None if owner is None else heads_of(model.get_submodule(owner))
    if owner is None or heads is None or size % heads:
        return None
    return Attention(owner, heads, size // heads)


def _owner(model: nn.Module, name: str) -> str | None:
    """Return the innermost module around a layer that has a number of heads."""
    while name:
        name = name.rpartition(".")[0]
        if heads_of(model.get_submodule(name)) is not None:
            return name
    return None


def heads_of(module: nn.Module) -> int | None:
    """Return the number of heads that a module has as an attribute."""
    found = (getattr(module, name, None) for name in HEADS)
    return next((count for count in found if isinstance(count, int) and count > 0), None)


def _of_heads(model: nn.Module, attention: Attention, parts: Sequence[Part]) -> Iterator[Part]:
    """Yield the attention's own parameters with one entry a head, such as biases of positions."""
    taken = {(part.axis.owner, part.axis.parameter) for part in parts}
    channels = range(attention.heads * attention.width)
    indices = tuple((i // attention.width,) * (i % attention.width == 0) for i in channels)
    owner = model.get_submodule(attention.name)
    for name, parameter in owner.named_parameters(recurse=False):
        dims = [d for d, length in enumerate(parameter.shape) if length == attention.heads]
        if len(dims) == 1 and (attention.name, name) not in taken:
            yield Part(Axis(attention.name, name, dim=dims[0]), indices)
