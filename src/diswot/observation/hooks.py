"""What the hooks of one forward pass record: feature maps, linear layers, the logits.

Letters: B images, N rows, K classes, C channels, D features that enter the classifier, H x W
positions.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from diswot.errors import UserError, unknown
from diswot.observation.boxes import is_boxes
from diswot.observation.dense_head import RanConvolution
from diswot.observation.detectors import Matches, run_matching
from diswot.observation.feature_maps import StageMap, add_stage_map, as_map, block_depths
from diswot.observation.modes import unwrapped
from diswot.observation.rows import is_dense, logits_of
from diswot.utils.compat import version_of

_LAST_CONVOLUTIONS = 6  # whose outputs are kept, of a dense network with several heads
_BACKBONE = "backbone"
_ENCODERS = (_BACKBONE, "encoder")  # usual names in the libraries
_BODIES = ("body", "features")  # of a backbone, before the levels that torchvision adds

_NEVER_A_MAP = (nn.Dropout, nn.Dropout2d, nn.Softmax, nn.Identity, nn.Flatten)


class LayerNames(TypedDict, total=False):
    """Names of the modules of a network that the user gives where the guess is wrong."""

    classifier: str
    last: str
    stages: Sequence[str]


@dataclass(frozen=True)
class LinearHead:
    """A linear layer that ran on vectors, and may be the classifier.

    Attributes:
        module: The layer.
        input: N x D.
        output: N x K.
        version: Version counter of `output` when it was recorded.
    """

    module: nn.Linear
    input: Tensor
    output: Tensor
    version: int

    def gives(self, logits: Tensor) -> bool:
        """Whether the layer's unchanged output is the output of the model, N x K."""
        same = self.output.shape == logits.shape and self.output.data_ptr() == logits.data_ptr()
        return same and self.version == version_of(self.output)


@dataclass
class Trace:
    """The record of one forward pass: the last map of each resolution, and the linear layers.

    Attributes:
        image_size: Height and width in pixels, of what the backbone takes.
        copy: Whether maps are copied, for a model that overwrites them.
        layers: Names of modules that the user gave, as in `observe.observe`.
        stage_maps: Maps that end the stages, and what follows global pooling.
        named: Outputs of the modules that the user named as maps, with their version counters.
        weighted: Linear and convolutional layers, in the order in which they ran.
        heads: Linear layers that ran on vectors.
        other_heads: Other modules with a weight of a row for each output, such as a cosine head.
        last_convolution: Name and input of the last convolution that ran; it may classify.
        logits: Output of the model, N x K, or B x K x h x w of a dense network.
        dense: Whether the model gives logits for each position.
        encoder: Name of the encoder of a dense network or a detector, whose maps alone end stages;
            empty if it has no usual name, None if all maps may end stages.
        convolutions: The convolutions of a dense network that ran last.
        levels: Levels of a detector's pyramid, which its backbone returns, B x C x H x W each, with
            their version counters.
        losses: Losses of a detector by name.
        matches: Anchors of a detector as it matched them; None if it does not show them.
    """

    image_size: tuple[int, int]
    copy: bool
    layers: LayerNames = field(default_factory=LayerNames)
    stage_maps: list[StageMap] = field(default_factory=list)
    named: dict[str, tuple[Tensor, int]] = field(default_factory=dict)
    weighted: dict[str, nn.Module] = field(default_factory=dict)
    heads: dict[str, LinearHead] = field(default_factory=dict)
    other_heads: dict[str, nn.Module] = field(default_factory=dict)
    last_convolution: tuple[str, Tensor] | None = None
    logits: Tensor | None = None
    dense: bool = False
    encoder: str | None = None
    convolutions: deque[RanConvolution] = field(
        default_factory=lambda: deque(maxlen=_LAST_CONVOLUTIONS)
    )
    levels: tuple[tuple[Tensor, int], ...] = ()
    losses: dict[str, Tensor] = field(default_factory=dict)
    matches: Matches | None = None

    def add_map(
        self, name: str, module: nn.Module, depth: int, inputs: Tensor, output: Tensor
    ) -> None:
        """Record an output of any shape if it ends, so far, the stage of its resolution.

        The depth is the number of blocks around the module, the inputs its first one.
        """
        features = as_map(output, self.image_size)
        if features is None or not self._encodes(name, features):
            return
        found = StageMap(name, depth, features, output, version_of(output), after_pooling=False)
        if add_stage_map(self.stage_maps, found, module, inputs) and self.copy:
            found.map = features.clone()

    def _encodes(self, name: str, features: Tensor) -> bool:
        """Whether a map may end a stage: that of an encoder, or one that does not grow."""
        if self.encoder is None:
            return True
        cells = features.shape[2:].numel()
        if self.encoder:
            return cells > 1 and name.startswith(f"{self.encoder}.")
        smallest = self.stage_maps[-1].map.shape[2:].numel() if self.stage_maps else cells
        return 1 < cells <= smallest

    def decodes(self, name: str) -> bool:
        """Whether a module of a dense network is outside of the encoder, as its classifier is."""
        return not self.encoder or not name.startswith(f"{self.encoder}.")

    def add_named(self, name: str, output: Tensor) -> None:
        """Record the output of a module that the user named."""
        kept = output.clone() if self.copy else output
        self.named[name] = kept, version_of(kept)

    def overwritten(self) -> bool:
        """Whether the model changed a recorded map in place."""
        kept = [(m.origin, m.version) for m in self.stage_maps if not m.after_pooling]
        kept += [*self.named.values(), *self.levels]
        return not self.copy and any(version_of(output) != version for output, version in kept)

    def stages(self, classifier: str) -> tuple[Tensor, ...]:
        """Return the maps that end the stages, without global pooling and what follows it.

        Args:
            classifier: Name of the classifier. If it is a convolution, its input ends the last
                stage.

        Returns:
            B x C x H x W each, from the largest to the smallest.
        """
        maps = tuple(m.map for m in self.stage_maps if not m.after_pooling)
        if maps and self.last_convolution is not None and self.last_convolution[0] == classifier:
            entering = self.last_convolution[1]
            if entering.shape[2:] == maps[-1].shape[2:]:
                return (*maps[:-1], entering)
        return maps


def run(
    model: nn.Module,
    images: Tensor,
    layers: LayerNames,
    *,
    copy: bool = False,
    targets: Tensor | None = None,
) -> Trace:
    """Run a model once with hooks, which are removed afterwards, also if the model raises.

    Args:
        model: Any classifier, dense network or detector, perhaps compiled or parallel over
            processes; names leave these wrappers out.
        images: B x C x H x W, at least two images.
        layers: Names of modules, as in `observe.observe`.
        copy: Whether maps are copied.
        targets: Targets of the images. Those of pixels are for a dense network, boxes for a
            detector; None, the default, for a classifier.

    Raises:
        UserError: The images do not fit the model, a name is unknown, or the model does not
            return the logits.
    """
    _check_images(images)
    _check_boxes(targets)
    modules = dict(unwrapped(model).named_modules())
    wanted = _named_maps(layers, modules)
    depths = block_depths(modules)
    dense = targets is not None and is_dense(targets)
    boxes = targets if targets is not None and is_boxes(targets) else None
    trace = Trace((images.shape[2], images.shape[3]), copy, layers, dense=dense)
    trace.encoder = _encoder(modules) if dense or boxes is not None else None
    if dense and not any(isinstance(m, nn.Conv2d) and trace.decodes(n) for n, m in modules.items()):
        trace.encoder = ""
    handles = []
    try:
        for name, module in modules.items():
            if name:
                hook = _hook(trace, name, depths[name], len(images), name in wanted)
                handles.append(module.register_forward_hook(hook))
        if boxes is not None:
            handles += _watch_levels(trace, modules)
            trace.losses, trace.matches = run_matching(model, images, boxes)
            return trace
        logits = model(images)
    except RuntimeError as error:
        _check_channels(images, error)
        if "nference tensor" in str(error):
            raise UserError(
                "the model's forward runs in torch.inference_mode, whose outputs cannot be "
                "recorded; use torch.no_grad there"
            ) from error
        raise
    finally:
        for handle in handles:
            handle.remove()
    trace.logits = _dense_logits(logits, images) if dense else _logits(logits, images)
    return trace


def _logits(outputs: object, images: Tensor) -> Tensor:
    if not isinstance(outputs, Tensor) or outputs.ndim != 2 or len(outputs) != len(images):
        raise UserError(
            f"the model must return one tensor of logits N x K, not {describe(outputs)}"
        )
    return outputs


def _dense_logits(outputs: object, images: Tensor) -> Tensor:
    logits = logits_of(outputs)
    if logits.ndim != 4 or len(logits) != len(images):
        raise UserError(f"the model must return logits B x K x H x W, not {describe(logits)}")
    return logits


def _encoder(modules: Mapping[str, nn.Module]) -> str:
    """Return the outermost module with the name of an encoder; empty if there is none.

    Networks of transformers have the name in `base_model_prefix`.
    """
    named = [name for name in modules if name.rpartition(".")[2] in _ENCODERS]
    prefixes = {n: getattr(module, "base_model_prefix", None) for n, module in modules.items()}
    bases = [f"{n}.{prefix}".removeprefix(".") for n, prefix in prefixes.items() if prefix]
    named += [name for name in bases if name in modules]
    return min(named, key=lambda name: name.count("."), default="")


def _watch_levels(trace: Trace, modules: Mapping[str, nn.Module]) -> list[RemovableHandle]:
    """Record what a detector's backbone takes and returns; its body alone has stages."""
    named = [name for name in modules if name.rpartition(".")[2] == _BACKBONE]
    name = min(named, key=lambda name: name.count("."), default=trace.encoder or "")
    bodies = [f"{name}.{part}" for part in _BODIES if f"{name}.{part}" in modules]
    trace.encoder = bodies[0] if bodies else name

    def enter(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if inputs and inputs[0].ndim == 4:
            trace.image_size = inputs[0].shape[2], inputs[0].shape[3]

    def leave(module: nn.Module, inputs: object, output: object) -> None:
        found = list(output.values()) if isinstance(output, Mapping) else []
        maps = [each for each in found if isinstance(each, Tensor) and each.ndim == 4]
        kept = [each.clone() if trace.copy else each for each in maps]
        trace.levels = tuple((each, version_of(each)) for each in kept)

    if not name:
        return []
    backbone = modules[name]
    return [backbone.register_forward_pre_hook(enter), backbone.register_forward_hook(leave)]


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
        elif _is_head(module, output):
            trace.other_heads[name] = module
        if wanted:
            trace.add_named(name, output)
        if not inputs or not isinstance(inputs[0], Tensor):
            return
        if isinstance(module, nn.Linear) and output.ndim == 2:
            trace.heads[name] = LinearHead(module, inputs[0], output, version_of(output))
            return
        if isinstance(module, nn.Conv2d):
            trace.last_convolution = name, inputs[0]
            if trace.dense and trace.decodes(name):
                trace.convolutions.append(RanConvolution(name, module, inputs[0], output))
        if not isinstance(module, _NEVER_A_MAP):
            trace.add_map(name, module, depth, inputs[0], output)

    return hook


def _is_head(module: nn.Module, output: Tensor) -> bool:
    """Say whether a module has a weight with a row for each of its outputs."""
    if output.ndim != 2:
        return False
    weight = dict(module.named_parameters(recurse=False)).get("weight")
    return weight is not None and weight.ndim == 2 and len(weight) == output.shape[1]


def _named_maps(layers: LayerNames, modules: Mapping[str, nn.Module]) -> set[str]:
    """Return the names of modules that the user named as maps, after a check of all names."""
    for key in layers:
        if key not in ("classifier", "last", "stages"):
            raise unknown("key of layers", key, ("classifier", "last", "stages"))
    if isinstance(layers.get("stages"), str):
        raise UserError("layers['stages'] must be a list of names, not one name")
    maps = {*layers.get("stages", ()), *filter(None, [layers.get("last")])}
    for name in (*maps, *filter(None, [layers.get("classifier")])):
        if name not in modules:
            raise unknown("layer", name, modules)
    return maps


def _check_channels(images: Tensor, error: RuntimeError) -> None:
    """Raise a `UserError` if the model failed because it takes another number of channels."""
    wanted = re.search(r"expected input\[([\d, ]+)\] to have (\d+) channels", str(error))
    if wanted and wanted[1] == ", ".join(map(str, images.shape)):
        raise UserError(
            f"the images have {images.shape[1]} channels, but the model takes {wanted[2]}"
        ) from error


def _check_images(images: Tensor) -> None:
    if images.ndim != 4 or not images.is_floating_point():
        raise UserError(f"images must be a float tensor B x C x H x W, not {describe(images)}")
    if len(images) < 2:
        raise UserError("batch statistics need at least two images")


def _check_boxes(targets: Tensor | None) -> None:
    if targets is None or targets.ndim != 3 or not targets.is_floating_point():
        return
    if not is_boxes(targets):
        raise UserError(
            "labels must be one int64 class index a pixel, or boxes, float B x M x 6, not "
            f"{describe(targets)}"
        )


def describe(value: object) -> str:
    """Describe an unexpected value by its type, and a tensor by its dtype and shape too."""
    if isinstance(value, Tensor):
        return f"a {str(value.dtype).removeprefix('torch.')} tensor {tuple(value.shape)}"
    return f"a {type(value).__name__}"
