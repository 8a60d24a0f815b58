"""What the hooks of one forward pass catch: feature maps, linear heads, the logits.

Letters: B batch, K classes, C channels, D features, H x W positions, N tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from diswot.errors import UserError, unknown

Layers = Mapping[str, str | Sequence[str]]

_MAX_PREFIX_TOKENS = 5  # a class token, a distillation token, registers
_NEVER_A_MAP = (nn.Dropout, nn.Dropout2d, nn.Softmax, nn.Identity, nn.Flatten)


@dataclass
class Seen:
    """A feature map caught by a hook, with the state of its memory at that time."""

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
    """What the hooks of one forward pass keep: the last map per resolution, the linear layers."""

    image_size: tuple[int, int]
    copy: bool
    stack: list[Seen] = field(default_factory=list)
    named: dict[str, Tensor] = field(default_factory=dict)
    weighted: dict[str, nn.Module] = field(default_factory=dict)
    heads: dict[str, Head] = field(default_factory=dict)
    logits: Tensor | None = None

    def see(self, module: nn.Module, depth: int, inputs: Tensor, output: Tensor) -> None:
        """Keep `output` if it ends, so far, the stage of its resolution.

        Kept maps shrink from first to last. A larger map than the last drops those smaller than
        itself: they were a side branch, as in squeeze-and-excitation. Among maps of one
        resolution the outermost module's wins, and then the later.
        """
        features = as_map(output, self.image_size)
        if features is None:
            return
        cells = _cells(features)
        while self.stack and _cells(self.stack[-1].map) < cells:
            self.stack.pop()
        same = bool(self.stack) and _cells(self.stack[-1].map) == cells
        pooled = self.stack[-1].after_pooling if same else cells == 1 and _pools(module, inputs)
        if same and depth > self.stack[-1].depth:
            return
        if same:
            self.stack.pop()
        kept = features.clone() if self.copy else features
        self.stack.append(Seen(depth, kept, output, output._version, pooled))

    def overwritten(self) -> bool:
        """Whether the model changed a kept map in place after it was caught."""
        return not self.copy and any(s.origin._version != s.version for s in self.stack)

    def stages(self) -> tuple[Tensor, ...]:
        """The maps that end the stages, global pooling and what follows it left out."""
        return tuple(s.map for s in self.stack if not s.after_pooling)


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
    for prefix in range(min(_MAX_PREFIX_TOKENS, tokens.shape[1] - 1) + 1):
        count = tokens.shape[1] - prefix
        rows = round((count * height / width) ** 0.5)
        if rows and count % rows == 0 and _fits(rows, count // rows, image_size):
            return tokens[:, prefix:].transpose(1, 2).unflatten(2, (rows, count // rows))
    return None


def _fits(rows: int, columns: int, image_size: tuple[int, int]) -> bool:
    """Whether a grid has the image's aspect ratio, to within one cell, and is no larger."""
    height, width = image_size
    skew = abs(rows * width - columns * height)
    return 1 <= rows <= height and 1 <= columns <= width and skew < max(height, width)


def _cells(features: Tensor) -> int:
    return features.shape[2] * features.shape[3]


def _pools(module: nn.Module, inputs: Tensor) -> bool:
    """Whether a first 1 x 1 map comes from pooling rather than from a layer that learns."""
    learns = next(module.parameters(), None) is not None
    return not learns or inputs.shape[2:].numel() == 1


def run(model: nn.Module, images: Tensor, layers: Layers, *, copy: bool = False) -> Trace:
    """Run the model once with hooks, and remove them whatever happens."""
    _check_images(images)
    modules = dict(model.named_modules())
    wanted = _wanted(layers, modules)
    trace = Trace((images.shape[2], images.shape[3]), copy)
    handles = []
    try:
        for name, module in modules.items():
            if name:
                hook = _hook(trace, name, len(images), wanted)
                handles.append(module.register_forward_hook(hook))
        logits = model(images)
    finally:
        for handle in handles:
            handle.remove()
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(images):
        raise UserError(f"the model must return one tensor of logits B x K, not {kind(logits)}")
    trace.logits = logits
    return trace


def _hook(
    trace: Trace, name: str, batch: int, wanted: set[str]
) -> Callable[[nn.Module, tuple[object, ...], object], None]:
    depth = name.count(".")

    def hook(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        if not isinstance(output, Tensor) or output.ndim == 0 or len(output) != batch:
            return
        if isinstance(module, nn.Linear | nn.Conv2d):
            trace.weighted[name] = module
        if name in wanted:
            trace.named[name] = output
        if not inputs or not isinstance(inputs[0], Tensor):
            return
        if isinstance(module, nn.Linear) and output.ndim == 2:
            trace.heads[name] = Head(module, inputs[0], output, output._version)
        elif not isinstance(module, _NEVER_A_MAP):
            trace.see(module, depth, inputs[0], output)

    return hook


def _wanted(layers: Layers, modules: Mapping[str, nn.Module]) -> set[str]:
    for key in layers:
        if key not in ("classifier", "last", "stages"):
            raise unknown("key of layers", key, ("classifier", "last", "stages"))
    names = {str(layers[key]) for key in ("classifier", "last") if key in layers}
    names.update(layers.get("stages", ()))
    for name in names:
        if name not in modules:
            raise unknown("layer", name, modules)
    return names


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
