"""What the hooks of one forward pass catch: feature maps, linear heads, the logits.

Letters: B batch, K classes, C channels, D features, H x W positions, N tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from diswot.errors import UserError, unknown

Layers = Mapping[str, str | Sequence[str]]

_MAX_PREFIX_TOKENS = 5  # a class token, a distillation token, registers
_NEVER_A_MAP = (nn.Dropout, nn.Dropout2d, nn.Softmax, nn.Identity, nn.Flatten)
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass
class Seen:
    """A feature map caught by a hook, with the state of its memory at that time."""

    name: str
    depth: int
    map: Tensor
    origin: Tensor
    version: int
    after_pooling: bool


@dataclass(frozen=True)
class Head:
    """A linear layer on vectors, seen running: perhaps the classifier."""

    module: nn.Linear
    input: Tensor
    output: Tensor
    version: int

    def gives(self, logits: Tensor) -> bool:
        """Whether this layer's output is the model's, untouched."""
        same = self.output.shape == logits.shape and self.output.data_ptr() == logits.data_ptr()
        return same and self.version == self.output._version


@dataclass
class Trace:
    """What the hooks of one forward pass keep: the last map per resolution, the linear layers.

    Attributes:
        image_size: Height and width.
        copy: Whether maps are copied, for a model that overwrites them.
        stack: The maps that end the stages so far, and what follows global pooling.
        named: Outputs of the modules that the user named as maps, with their versions.
        weighted: Linear and convolutional layers, in the order in which they ran.
        heads: Linear layers on vectors.
        scorer: The last convolution that ran, and its input: perhaps the classifier.
        logits: What the model returned.
    """

    image_size: tuple[int, int]
    copy: bool
    stack: list[Seen] = field(default_factory=list)
    named: dict[str, tuple[Tensor, int]] = field(default_factory=dict)
    weighted: dict[str, nn.Module] = field(default_factory=dict)
    heads: dict[str, Head] = field(default_factory=dict)
    scorer: tuple[str, Tensor] | None = None
    logits: Tensor | None = None

    def see(self, name: str, module: nn.Module, depth: int, inputs: Tensor, output: Tensor) -> None:
        """Keep `output` if it ends, so far, the stage of its resolution.

        Kept maps shrink from first to last. Among maps of one resolution the outermost module's
        wins, and then the later. A larger map than the last drops those smaller than itself, which
        were a side branch, as in squeeze-and-excitation; unless it lies deeper, and is a side
        branch itself, as a matrix of attention.
        """
        features = as_map(output, self.image_size)
        if features is None or _stretches(module, inputs, output):
            return
        cells = _cells(features)
        while self.stack and _cells(self.stack[-1].map) < cells and depth <= self.stack[-1].depth:
            self.stack.pop()
        peer = self.stack[-1] if self.stack and _cells(self.stack[-1].map) <= cells else None
        if peer is not None and depth > peer.depth:
            return
        pooled = cells == 1 and _pools(module, inputs, first=peer is None)
        if peer is not None and (peer.after_pooling or not pooled):
            pooled = peer.after_pooling
            self.stack.pop()
        kept = features.clone() if self.copy else features
        self.stack.append(Seen(name, depth, kept, output, output._version, pooled))

    def name(self, name: str, output: Tensor) -> None:
        """Keep the output of a module that the user named."""
        kept = output.clone() if self.copy else output
        self.named[name] = kept, kept._version

    def overwritten(self) -> bool:
        """Whether the model changed a kept map in place after it was caught."""
        kept = [(s.origin, s.version) for s in self.stack if not s.after_pooling]
        kept += self.named.values()
        return not self.copy and any(output._version != version for output, version in kept)

    def stages(self, classifier: str) -> tuple[Tensor, ...]:
        """The maps that end the stages, global pooling and what follows it left out.

        Where the classifier is a convolution, what enters it ends the last stage.
        """
        maps = tuple(s.map for s in self.stack if not s.after_pooling)
        if maps and self.scorer is not None and self.scorer[0] == classifier:
            entering = self.scorer[1]
            if entering.shape[2:] == maps[-1].shape[2:]:
                return (*maps[:-1], entering)
        return maps


def as_map(output: Tensor, image_size: tuple[int, int]) -> Tensor | None:
    """Lay out a module's output as B x C x H x W, or None when it is no map of the image.

    Takes B x C x H x W, B x H x W x C (when only that fits the image's shape) and tokens
    B x N x D with up to five tokens before the grid. A map has the image's aspect ratio and is no
    larger than the image.
    """
    if output.ndim == 4:
        if _fits(output.shape[2], output.shape[3], image_size):
            return output
        if _fits(output.shape[1], output.shape[2], image_size):
            return output.permute(0, 3, 1, 2)
    if output.ndim == 3:
        return _tokens_as_map(output, image_size)
    return None


def _tokens_as_map(tokens: Tensor, image_size: tuple[int, int]) -> Tensor | None:
    height, width = image_size
    batch, length, features = tokens.shape
    for prefix in range(min(_MAX_PREFIX_TOKENS, length - 1) + 1):
        count = length - prefix
        rows = round((count * height / width) ** 0.5)
        if rows and count % rows == 0 and _fits(rows, count // rows, image_size):
            grid = tokens[:, prefix:].transpose(1, 2)
            return grid.reshape(batch, features, rows, count // rows)
    return None


def _fits(rows: int, columns: int, image_size: tuple[int, int]) -> bool:
    """Whether a grid has the image's aspect ratio, to within one cell, and is no larger."""
    height, width = image_size
    skew = abs(rows * width - columns * height)
    return 1 <= rows <= height and 1 <= columns <= width and skew < max(height, width)


def _cells(features: Tensor) -> int:
    return features.shape[2] * features.shape[3]


def _pools(module: nn.Module, inputs: Tensor, *, first: bool) -> bool:
    """Whether a 1 x 1 map, perhaps the first, comes from global pooling.

    A first 1 x 1 map does unless a layer that learns, a local maximum or a choice of tokens made
    it; a later one, if the module is called a pool. A class token that comes alone is no map.
    """
    if not first:
        return "Pool" in type(module).__name__
    if inputs.ndim == 3:
        return inputs.shape[1] == 1
    if inputs.ndim != 4 or isinstance(module, nn.MaxPool2d):
        return False
    return not _learns(module) or inputs.shape[2:].numel() == 1


def _stretches(module: nn.Module, inputs: Tensor, output: Tensor) -> bool:
    """Whether a layer that learns nothing enlarged the map, as pooling to a fixed grid may."""
    if inputs.ndim != 4 or output.ndim != 4:
        return False
    return inputs.shape[2:].numel() < output.shape[2:].numel() and not _learns(module)


def _learns(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _depths(modules: Mapping[str, nn.Module]) -> dict[str, int]:
    """How many blocks each module lies in; a container of blocks is not a block."""
    depths, holds = {"": -1}, {"": False}
    for name, module in modules.items():
        if name:
            parent = name.rpartition(".")[0]
            holds[name] = _holds_blocks(module)
            depths[name] = depths[parent] + (not holds[parent])
    return depths


def _holds_blocks(module: nn.Module) -> bool:
    """Whether this is a plain container of modules with parts that learn, or of such containers."""
    if not isinstance(module, _CONTAINERS):
        return False
    children = list(module.children())
    parts = [
        part
        for child in children
        if not isinstance(child, _CONTAINERS)
        for part in child.children()
    ]
    return any(map(_learns, parts)) or any(map(_holds_blocks, children))


def run(model: nn.Module, images: Tensor, layers: Layers, *, copy: bool = False) -> Trace:
    """Run the model once with hooks, and remove them whatever happens."""
    _check_images(images)
    modules = dict(model.named_modules())
    wanted = _wanted(layers, modules)
    depths = _depths(modules)
    trace = Trace((images.shape[2], images.shape[3]), copy)
    handles = []
    try:
        for name, module in modules.items():
            if name:
                hook = _hook(trace, name, depths[name], len(images), name in wanted)
                handles.append(module.register_forward_hook(hook))
        logits = model(images)
    except RuntimeError as error:
        _check_channels(images, error)
        raise
    finally:
        for handle in handles:
            handle.remove()
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(images):
        raise UserError(f"the model must return one tensor of logits B x K, not {kind(logits)}")
    trace.logits = logits
    return trace


def _hook(
    trace: Trace, name: str, depth: int, batch: int, wanted: bool
) -> Callable[[nn.Module, tuple[object, ...], object], None]:
    def hook(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        if isinstance(output, tuple) and output:
            output = output[0]
        if not isinstance(output, Tensor) or output.ndim == 0 or output.shape[0] != batch:
            return
        if isinstance(module, nn.Linear | nn.Conv2d):
            trace.weighted[name] = module
        if wanted:
            trace.name(name, output)
        if not inputs or not isinstance(inputs[0], Tensor):
            return
        if isinstance(module, nn.Linear) and output.ndim == 2:
            trace.heads[name] = Head(module, inputs[0], output, output._version)
            return
        if isinstance(module, nn.Conv2d):
            trace.scorer = name, inputs[0]
        if not isinstance(module, _NEVER_A_MAP):
            trace.see(name, module, depth, inputs[0], output)

    return hook


def _wanted(layers: Layers, modules: Mapping[str, nn.Module]) -> set[str]:
    """The names of modules that are wanted as maps, after a check of all names."""
    for key in layers:
        if key not in ("classifier", "last", "stages"):
            raise unknown("key of layers", key, ("classifier", "last", "stages"))
    if isinstance(layers.get("stages"), str):
        raise UserError("layers['stages'] must be a list of names, not one name")
    maps = {str(layers["last"])} if "last" in layers else set()
    maps.update(layers.get("stages", ()))
    for name in (*maps, *([str(layers["classifier"])] if "classifier" in layers else ())):
        if name not in modules:
            raise unknown("layer", name, modules)
    return maps


def _check_channels(images: Tensor, error: RuntimeError) -> None:
    """Say so if the model failed because it takes images of other channels."""
    wanted = re.search(r"expected input\[([\d, ]+)\] to have (\d+) channels", str(error))
    if wanted and wanted[1] == ", ".join(map(str, images.shape)):
        raise UserError(
            f"the images have {images.shape[1]} channels, but the model takes {wanted[2]}"
        ) from error


def _check_images(images: Tensor) -> None:
    if images.ndim != 4 or not images.is_floating_point():
        raise UserError(f"images must be a float tensor B x C x H x W, not {kind(images)}")
    if len(images) < 2:
        raise UserError("batch statistics need at least two images")


def kind(value: object) -> str:
    """Describe a value that was not expected, for a message."""
    if isinstance(value, Tensor):
        return f"a {str(value.dtype).removeprefix('torch.')} tensor {tuple(value.shape)}"
    return f"a {type(value).__name__}"
