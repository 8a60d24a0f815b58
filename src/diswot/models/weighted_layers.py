"""The layers of a network that have weights, by their place: stem, stages of blocks, head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from diswot.utils.compat import ConvBase

# Kinds of layers. Two layers of one kind differ in nothing but their sizes.
SPATIAL, POINTWISE, DEPTHWISE, GROUPED = "spatial", "pointwise", "depthwise", "grouped"
PATCHES, LINEAR, QKV, PROJECTION = "patches", "linear", "qkv", "projection"
SQUEEZE, SCALE, FREE = "squeeze", "scale", "free"

HEADS = ("num_heads", "num_attention_heads", "heads", "n_heads")  # attributes of an attention
_SEPARATE = (
    ("q", "k", "v"),
    ("query", "key", "value"),
    ("q_proj", "k_proj", "v_proj"),
    ("to_q", "to_k", "to_v"),
)
_SHORTCUTS = ("shortcut", "downsample", "skip", "identity", "residual")


@dataclass(frozen=True, eq=False)
class WeightedLayer:
    """A layer with parameters of its own.

    Attributes:
        name: Path of the module, or of the parameter where the kind is `free`.
        kind: One of the kinds above. `squeeze` is a map of squeeze-and-excitation, `scale` a norm
            or another layer with one number for each channel, `free` a parameter of no known layer.
        module: The module that owns the parameters.
        weights: Parameters and running statistics by role. A role has three tensors where queries,
            keys and values are separate layers, else one.
        heads: Attention heads of a `qkv` or a `projection`; else 1.
    """

    name: str
    kind: str
    module: nn.Module
    weights: Mapping[str, Sequence[Tensor]]
    heads: int = 1

    @property
    def params(self) -> int:
        """Number of parameters, without statistics."""
        parts = [part for parts in self.weights.values() for part in parts]
        return sum(part.numel() for part in parts if isinstance(part, nn.Parameter))

    @property
    def is_map(self) -> bool:
        """Whether the layer is a convolution or a linear map."""
        return self.kind not in (SCALE, FREE)

    @property
    def outputs(self) -> int:
        """Number of output channels."""
        return sum(len(part) for part in next(iter(self.weights.values())))

    @property
    def inputs(self) -> int:
        """Number of input channels."""
        if isinstance(self.module, ConvBase):
            return self.module.in_channels
        return self.weights["weight"][0].shape[1] if self.is_map else self.outputs


@dataclass(frozen=True, eq=False)
class LayerBlock:
    """A block of layers, such as a residual block.

    Attributes:
        name: Path of the module.
        main: Layers of the main path.
        shortcut: Layers of the shortcut.
    """

    name: str
    main: list[WeightedLayer] = field(default_factory=list)
    shortcut: list[WeightedLayer] = field(default_factory=list)

    @property
    def changes_shape(self) -> bool:
        """Whether the output has another number of channels or another resolution."""
        maps = self._maps
        strides = [max(each.module.stride) for each in maps if isinstance(each.module, ConvBase)]
        return bool(maps) and (maps[0].inputs != maps[-1].outputs or max(strides, default=1) > 1)

    @property
    def form(self) -> tuple[str, ...]:
        """Kinds of the convolutions and linear maps of the main path."""
        return tuple(layer.kind for layer in self._maps)

    @property
    def _maps(self) -> list[WeightedLayer]:
        """Convolutions and linear maps of the main path, without squeeze-and-excitation."""
        return [layer for layer in self.main if layer.is_map and layer.kind != SQUEEZE]


@dataclass(frozen=True, eq=False)
class LayerStage:
    """Consecutive blocks, of which only the first may change the shape.

    Attributes:
        before: Layers between the previous stage and the first block.
        blocks: The blocks.
    """

    before: list[WeightedLayer]
    blocks: list[LayerBlock]


@dataclass(frozen=True, eq=False)
class Outline:
    """The layers of a network by their place.

    Attributes:
        stem: Layers before the first block.
        stages: Stages of blocks.
        head: Layers after the last block.
    """

    stem: list[WeightedLayer]
    stages: list[LayerStage]
    head: list[WeightedLayer]

    @property
    def layers(self) -> list[WeightedLayer]:
        """All layers in order."""
        found = list(self.stem)
        for stage in self.stages:
            found += stage.before
            for block in stage.blocks:
                found += block.main + block.shortcut
        return found + self.head


def outline(model: nn.Module) -> Outline:
    """Sort the layers of a network into stem, stages and head.

    A block is a child of a list of modules (`Sequential`, `ModuleList`) in which at least half of
    the children hold two convolutions or linear maps. A stage ends where the list ends, or before
    a block that changes the shape. A network without such lists is all stem.
    """
    lists = dict(_blocks("", model))
    found: list[tuple[list[WeightedLayer], LayerBlock]] = []
    between: list[WeightedLayer] = []
    for layer in weighted_layers(model):
        path = next((path for path in _ancestors(layer.name) if path in lists), None)
        if path is None:
            between.append(layer)
            continue
        if not found or found[-1][1].name != path:
            found.append((between, LayerBlock(path)))
            between = []
        block = found[-1][1]
        inner = layer.name[len(path) + 1 :].partition(".")[0].lower()
        side = any(word in inner for word in _SHORTCUTS)
        (block.shortcut if side else block.main).append(layer)
    if not found:
        return Outline(between, [], [])
    return Outline(found[0][0], _stages([([], found[0][1]), *found[1:]], lists), between)


def _stages(
    found: list[tuple[list[WeightedLayer], LayerBlock]], lists: Mapping[str, str]
) -> list[LayerStage]:
    """Divide the blocks, each with the layers before it, into stages."""
    stages: list[LayerStage] = []
    place = None
    for before, block in found:
        if lists[block.name] != place or block.changes_shape:
            stages.append(LayerStage([], []))
        stages[-1].before.extend(before)
        stages[-1].blocks.append(block)
        place = lists[block.name]
    return stages


def _ancestors(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _blocks(path: str, module: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield the path of each block and the path of its list."""
    for name, child in module.named_children():
        inner = f"{path}.{name}".lstrip(".")
        if _is_list(module) and _is_heavy(child) and not any(map(_is_list, child.modules())):
            yield inner, path
        else:
            yield from _blocks(inner, child)


def _is_list(module: nn.Module) -> bool:
    if not isinstance(module, nn.Sequential | nn.ModuleList):
        return False
    heavy = [_is_heavy(child) for child in module if any(True for _ in child.parameters())]
    return 2 * sum(heavy) >= len(heavy) > 0


def _is_heavy(module: nn.Module) -> bool:
    """Say whether a module holds two convolutions or linear maps."""
    maps = (nn.Linear, ConvBase, nn.MultiheadAttention)
    return sum(isinstance(inner, maps) for inner in module.modules()) >= 2


def weighted_layers(model: nn.Module) -> list[WeightedLayer]:
    """Return the layers of a network in the order in which the network registers them."""
    squeezing = {
        inner
        for module in model.modules()
        if type(module).__name__.startswith("SE") or "Squeeze" in type(module).__name__
        for inner in module.modules()
    } - {model}
    heads: dict[nn.Module, int] = {}
    fused: set[nn.Module] = set()
    found: list[WeightedLayer] = []
    for name, module in model.named_modules():
        if module in fused:
            continue
        count = next((v for key in HEADS if isinstance(v := getattr(module, key, None), int)), 0)
        if count and isinstance(qkv := getattr(module, "qkv", None), nn.Linear):
            heads[qkv] = count
        if count and (separate := _separate(module)):
            fused.update(separate)
            found.append(_fused(name, module, separate, count))
        elif isinstance(module, nn.MultiheadAttention):
            found += _multihead(name, module)
        else:
            found += _own_layers(name, module, heads.get(module, 0), module in squeezing)
    return _with_projections(found)


def _separate(module: nn.Module) -> list[nn.Linear]:
    """Return the layers of queries, keys and values of an attention, if they are three."""
    for names in _SEPARATE:
        layers = [getattr(module, name, None) for name in names]
        linear = [layer for layer in layers if isinstance(layer, nn.Linear) and _is_plain(layer)]
        if len(linear) == 3 and len({layer.weight.shape for layer in linear}) == 1:
            return linear
    return []


def _fused(name: str, module: nn.Module, layers: list[nn.Linear], heads: int) -> WeightedLayer:
    """Return one layer for separate queries, keys and values."""
    parts = [dict(layer.named_parameters(recurse=False)) for layer in layers]
    roles = [role for role in parts[0] if all(role in part for part in parts)]
    weights = {role: tuple(part[role] for part in parts) for role in roles}
    return WeightedLayer(name, QKV, module, weights, heads)


def _multihead(name: str, module: nn.MultiheadAttention) -> list[WeightedLayer]:
    """Return torch's fused queries, keys and values; none where their widths differ."""
    own = dict(module.named_parameters(recurse=False))
    roles = {"weight": "in_proj_weight", "bias": "in_proj_bias"}
    weights = {role: (own[key],) for role, key in roles.items() if key in own}
    if "weight" not in weights:
        return []
    return [WeightedLayer(name, QKV, module, weights, module.num_heads)]


def _own_layers(
    name: str, module: nn.Module, heads: int, squeezing: bool
) -> Iterator[WeightedLayer]:
    """Yield the layer that a module is, or each of its parameters as a layer."""
    own: dict[str, Tensor] = dict(module.named_parameters(recurse=False))
    kind = _kind(module, own, heads, squeezing)
    if kind == FREE:
        for role, value in own.items():
            yield WeightedLayer(f"{name}.{role}".lstrip("."), FREE, module, {role: (value,)})
    elif own:
        own |= dict(module.named_buffers(recurse=False)) if kind == SCALE else {}
        weights = {role: (value,) for role, value in own.items()}
        yield WeightedLayer(name, kind, module, weights, heads or 1)


def _kind(module: nn.Module, own: Mapping[str, Tensor], heads: int, squeezing: bool) -> str:
    """Return the kind of the layer that a module is."""
    if isinstance(module, nn.Linear) and _is_plain(module):
        return QKV if heads else SQUEEZE if squeezing else LINEAR
    if isinstance(module, ConvBase) and _is_plain(module) and not module.transposed:
        if squeezing:
            return SQUEEZE
        if module.groups > 1:
            depthwise = module.groups == module.in_channels == module.out_channels
            return DEPTHWISE if depthwise else GROUPED
        if max(module.kernel_size) == 1:
            return POINTWISE
        return PATCHES if module.kernel_size == module.stride else SPATIAL
    scales = own.keys() <= {"weight", "bias"} and {value.ndim for value in own.values()} == {1}
    return SCALE if scales else FREE


def _is_plain(module: nn.Module) -> bool:
    """Say whether the weight is a parameter, and not computed from others as in weight norm."""
    return any(name == "weight" for name, _ in module.named_parameters(recurse=False))


def _with_projections(layers: list[WeightedLayer]) -> list[WeightedLayer]:
    """Mark the linear map after each attention, which reads the channels of the heads."""
    found: list[WeightedLayer] = []
    attention: WeightedLayer | None = None
    for layer in layers:
        marked = layer
        if attention is not None and layer.kind == LINEAR:
            if layer.inputs == attention.outputs // 3:
                marked = replace(layer, kind=PROJECTION, heads=attention.heads)
            attention = None
        elif layer.kind == QKV:
            attention = layer
        found.append(marked)
    return found
