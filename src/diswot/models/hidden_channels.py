"""Channels inside a block that one layer writes and one layer reads, found by torch.fx."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import fx, nn

from diswot.models.weighted_layers import DEPTHWISE, GROUPED, QKV, SCALE, WeightedLayer

_PLAIN = (  # packages of modules without weights that keep the channels in their order
    "torch.nn.modules.activation",
    "torch.nn.modules.dropout",
    "torch.nn.modules.pooling",
    "timm.layers.activations",
    "timm.layers.drop",
)
_FUNCTIONS = ("relu", "relu_", "relu6", "gelu", "silu", "hardswish", "hardtanh", "dropout")

Modules = Mapping[nn.Module, WeightedLayer]


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


def hidden_channels(block: nn.Module, layers: Modules) -> list[HiddenChannels]:
    """Return the hidden channels of a block; none if torch.fx cannot trace the block.

    Args:
        block: Module of a network.
        layers: Layers of the network by their modules.
    """
    try:
        graph = _WeightTracer().trace(block)
    except Exception:  # a user's block may do anything
        return []
    modules = dict(block.named_modules())
    found = []
    for node in graph.nodes:
        layer = layers.get(modules[node.target]) if node.op == "call_module" else None
        if layer is not None and _is_end(layer) and (path := _path(node, modules, layers)):
            found.append(HiddenChannels(layer, tuple(path[:-1]), path[-1]))
    return found


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
