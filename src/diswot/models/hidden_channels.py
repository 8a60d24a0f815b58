"""Channels inside a block that one layer writes and one layer reads, found by torch.fx."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, MutableMapping
from types import BuiltinFunctionType, FunctionType
from typing import NamedTuple

from torch import Tensor, fx, nn

from diswot.models.weighted_layers import DEPTHWISE, GROUPED, QKV, SCALE, WeightedLayer
from diswot.utils.compat import CHILDREN, OWN_TENSORS

_PLAIN = (  # packages of modules without weights that keep the channels in their order
    "torch.nn.modules.activation",
    "torch.nn.modules.dropout",
    "torch.nn.modules.pooling",
    "timm.layers.activations",
    "timm.layers.drop",
)
_FUNCTIONS = ("relu", "relu_", "relu6", "gelu", "silu", "hardswish", "hardtanh", "dropout")

_COMPARED = (bool, int, float, str, type, FunctionType, BuiltinFunctionType)

Modules = Mapping[nn.Module, WeightedLayer]
Graphs = MutableMapping[Hashable, fx.Graph | None]


class HiddenChannels(NamedTuple):
    """Channels that only the layers of one path use.

    Attributes:
        writer: Map that writes them.
        between: Norms and depthwise convolutions on the way.
        reader: Map that reads them.
    """

    writer: WeightedLayer
    between: tuple[WeightedLayer, ...]
    reader: WeightedLayer


class _WeightTracer(fx.Tracer):
    """A tracer that looks into no module with weights of its own."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return any(True for _ in m.parameters(recurse=False)) or not any(True for _ in m.children())


def hidden_channels(block: nn.Module, layers: Modules, graphs: Graphs) -> list[HiddenChannels]:
    """Return the hidden channels of a block; none if torch.fx cannot trace the block.

    Args:
        block: Module of a network.
        layers: Layers of the network by their modules.
        graphs: Graphs of the blocks that were traced before, by their form; the block's is added.
    """
    graph = _traced(block, graphs)
    if graph is None:
        return []
    modules = dict(block.named_modules())
    found = []
    for node in graph.nodes:
        layer = layers.get(modules[node.target]) if node.op == "call_module" else None
        if layer is not None and _is_end(layer) and (path := _path(node, modules, layers)):
            found.append(HiddenChannels(layer, tuple(path[:-1]), path[-1]))
    return found


def _traced(block: nn.Module, graphs: Graphs) -> fx.Graph | None:
    """Return the graph of a block, which takes longer than to copy its weights; None for none."""
    form = _form(block)
    if form is not None and form in graphs:
        return graphs[form]
    try:
        graph = _WeightTracer().trace(block)
    except Exception:  # a user's block may do anything
        graph = None
    if form is not None:
        graphs[form] = graph
    return graph


def _form(block: nn.Module) -> Hashable | None:
    """Return what the graph of a block depends on: its modules and all of their attributes.

    None if an attribute is of a kind that cannot be compared.
    """
    try:
        return tuple(
            (
                name,
                type(module),
                *((key, _plain(key, value)) for key, value in vars(module).items()),
            )
            for name, module in block.named_modules(remove_duplicate=False)
        )
    except TypeError:
        return None


def _plain(key: str, value: object) -> Hashable:
    """Return an attribute as a value that can be compared.

    Raises:
        TypeError: It cannot.
    """
    if key == CHILDREN:
        return None  # named_modules lists them
    if key in OWN_TENSORS and isinstance(value, dict):  # of which the shapes alone count
        shapes = ((name, part) for name, part in value.items() if isinstance(part, Tensor))
        return tuple((name, tuple(part.shape)) for name, part in shapes)
    if isinstance(value, list | tuple | set | frozenset | dict):
        whole = value.items() if isinstance(value, dict) else value
        return type(value), tuple(_plain("", each) for each in whole)
    if value is None or isinstance(value, _COMPARED):
        return type(value), value
    raise TypeError


def _path(node: fx.Node, modules: Mapping[str, nn.Module], layers: Modules) -> list[WeightedLayer]:
    """Return the layers after a node up to the next map; none if the path divides or ends."""
    path: list[WeightedLayer] = []
    while len(node.users) == 1:
        node = next(iter(node.users))
        if node.op != "call_module":
            name = (
                node.target
                if isinstance(node.target, str)
                else getattr(node.target, "__name__", "")
            )
            if node.op not in ("call_function", "call_method") or name not in _FUNCTIONS:
                return []
            continue
        module = modules[str(node.target)]
        layer = layers.get(module)
        if layer is None:
            if not (isinstance(module, nn.Identity) or type(module).__module__.startswith(_PLAIN)):
                return []
            continue
        path.append(layer)
        if _is_end(layer):
            return path
        if layer.kind not in (SCALE, DEPTHWISE):
            return []
    return []


def _is_end(layer: WeightedLayer) -> bool:
    return layer.is_map and layer.kind not in (DEPTHWISE, GROUPED, QKV)
