"""One forward pass of any network, and everything that the scores need from it.

Letters: B images, N rows (in classification a row is an image, so N = B; in segmentation a pixel;
in detection an anchor, a point or a proposal), K classes, C channels, D features that enter the
classifier, H x W positions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from diswot.errors import UserError
from diswot.observation import gradcam as cams
from diswot.observation.box_rows import BoxRows
from diswot.observation.boxes import is_boxes
from diswot.observation.class_gradient import autograd_class_gradient, linear_class_gradient
from diswot.observation.dense_head import RanConvolution, head_convolutions, head_inputs
from diswot.observation.detectors import Matches, run_matching
from diswot.observation.feature_maps import as_map
from diswot.observation.hooks import LayerNames, Trace, describe, run
from diswot.observation.modes import measuring, recordable, require_network, unwrapped
from diswot.observation.rows import IGNORED, PixelRows, is_dense, logits_of

_log = logging.getLogger("diswot")

_NAMES = "model.diswot_layers"
_NAME_IT = f"name it: {_NAMES} = {{'classifier': NAME}}"

Rerun = Callable[[], Tensor]
Rematch = Callable[[], Matches | None]


class NoClassifier(UserError):
    """Error of a network whose classifier is not found."""


@dataclass(frozen=True, repr=False)
class Observation:
    """What one forward pass shows of a model on one batch with targets.

    Attributes:
        stages: Map that ends each resolution stage, B x C x H x W each, from the largest to the
            smallest. Tokens are laid out as a map. The map that a dense network's classifier reads
            follows the stages of its encoder. Of a detector with several levels, these are the
            stages.
        last: Map before global pooling, B x C x H x W; of a dense network the map that the
            classifier reads; of a detector the smallest map of its backbone, before the pyramid.
        head_input: Inputs of the classifier H, N x D.
        logits: Outputs of the model Z, N x K; of a detector with the background, N x (K + 1), as
            `BoxRows.logits` describes.
        targets: Class indices y of the rows, N; of a detector from 1 to K, or 0 for the background.
        class_gradient: Gradient G of the mean cross-entropy in the classifier's weight, K x D.
        cam_weights: Influence of each channel of `last` on the target's logit, B x C, as in
            Grad-CAM. None if they would have cost another pass and were not asked for, and for
            dense networks.
        positions: Logits of a dense network for all positions, B x K x h x w; None for others.
        losses: Losses of a detector by name; None for other networks.
        anchors: Image and box of each row, N x 5, of a detector; None for other networks.
        strides: Pixels a position of each stage, of a detector; empty for other networks.

    What a detector does not show has no entries: the rows if it has no matcher of torchvision's,
    their inputs and the class gradient if the head's last convolutions are not found.
    """

    stages: tuple[Tensor, ...]
    last: Tensor
    head_input: Tensor
    logits: Tensor
    targets: Tensor
    class_gradient: Tensor
    cam_weights: Tensor | None = None
    positions: Tensor | None = None
    losses: Mapping[str, Tensor] | None = None
    anchors: Tensor | None = None
    strides: tuple[float, ...] = ()

    def __repr__(self) -> str:
        stages = ", ".join(str(tuple(stage.shape)) for stage in self.stages)
        rows, classes = self.logits.shape if self.logits.numel() else (0, 0)
        return f"Observation({rows} rows, {classes} classes, stages {stages})"


def observe(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    layers: LayerNames | None = None,
    cam: bool = False,
) -> Observation:
    """Run a model once, without gradients, and return what the pass shows.

    Normalisation layers use the batch's statistics; dropout and stochastic depth are off. The
    model is left as it was found: mode, running statistics, gradients, hooks and the global
    random state, also if its forward pass raises.

    If the classifier is not one linear layer, its class gradient costs another forward pass and a
    backward pass. The classifier of a dense network may be one convolution or several whose outputs
    are summed, and the model may enlarge its logits by bilinear interpolation. If the model
    overwrites a map in place, the pass is repeated with copies.

    Args:
        model: Any network that maps images to logits: one tensor, N x K; or of a dense network
            B x K x h x w, as `rows.logits_of` finds them; or a detector that follows torchvision's
            convention.
        images: B x 3 x H x W, on the model's device.
        targets: Class indices below K, int64, N; or those of pixels, B x H x W, where
            `rows.IGNORED` is no class; or boxes, B x M x 6, as `boxes` describes them.
        layers: Names of modules, where the guess is wrong: `classifier` and `last` (one name
            each), `stages` (a list of names). Default: the model's attribute `diswot_layers`, which
            a function of a teacher or a space may set; without one they are guessed.
        cam: Whether to compute `cam_weights` also if they cost another forward pass and a backward
            pass down to the last map.

    Raises:
        UserError: No classifier or no feature map is found, a layer's name is unknown, or the
            images do not fit the model.
    """
    require_network("model", model)
    layers = given_layers(model) if layers is None else layers
    with recordable(images, targets) as (images, targets):
        with measuring(model):
            trace = run(model, images, layers, targets=targets)
        if trace.overwritten():
            with measuring(model):
                trace = run(model, images, layers, copy=True, targets=targets)
        return _observation(model, trace, images, targets, cam, measuring)


def record(model: nn.Module, images: Tensor, targets: Tensor, *, cam: bool = False) -> Observation:
    """Observe the forward pass of a training step, in the model's own mode and with gradients.

    Arguments and errors are those of `observe`.

    Raises:
        UserError: The model overwrites a map in place, so that the observation would be wrong.
    """
    trace = run(model, images, given_layers(model), targets=targets)
    if trace.overwritten():
        raise UserError("the model overwrites a stage's map in place; name other stages in layers")
    return _observation(model, trace, images, targets, cam, nullcontext)


def given_layers(model: nn.Module) -> LayerNames:
    """Return the names of modules that a model brings with it; none by default."""
    given: LayerNames = getattr(unwrapped(model), "diswot_layers", LayerNames())
    return given


def _observation(
    model: nn.Module,
    trace: Trace,
    images: Tensor,
    targets: Tensor,
    cam: bool,
    mode: Callable[[nn.Module], AbstractContextManager[object]],
) -> Observation:
    if is_boxes(targets):

        def rematch() -> Matches | None:
            with mode(model):
                return run_matching(model, images, targets)[1]

        return _box_observation(trace, rematch)

    def rerun() -> Tensor:
        with mode(model):
            return logits_of(model(images))

    logits = trace.logits
    assert logits is not None
    _check_targets(targets, logits)
    if trace.dense:
        return _dense_observation(trace, logits, rerun, PixelRows(targets))
    name, weight = _classifier(trace, logits)
    stages, last = _maps(trace, name)
    head = trace.heads.get(name)
    linear = head is not None and head.gives(logits)
    head_input = last.mean((2, 3)) if head is None else head.input
    if linear:
        gradient = linear_class_gradient(head_input, logits, targets)
    else:
        gradient = autograd_class_gradient(rerun, logits, targets, weight)
    cam_weights = None
    if linear and cams.reads_mean(head_input, last):
        cam_weights = cams.linear_cam_weights(weight, targets, last)
    elif cam:
        cam_weights = _autograd_cam_weights(model, trace, logits, rerun, targets, name)
    return Observation(stages, last, head_input, logits, targets, gradient, cam_weights)


def _dense_observation(trace: Trace, outputs: Tensor, rerun: Rerun, rows: PixelRows) -> Observation:
    logits, targets = rows.read(outputs), rows.classes
    heads: tuple[RanConvolution, ...] = ()
    entering: Tensor | None = None
    if "classifier" not in trace.layers:
        heads, aligned = head_convolutions(trace.convolutions, logits, rows)
        entering = head_inputs(heads, rows, align_corners=aligned)
    classifier = heads[-1] if heads else _dense_classifier(trace, logits)
    if entering is not None:
        gradient = linear_class_gradient(entering, logits, targets)
    else:
        entering = rows.read(classifier.input)
        weight = classifier.module.weight
        gradient = autograd_class_gradient(lambda: rows.read(rerun()), logits, targets, weight)
    named, last = named_maps(trace)
    last = classifier.input if last is None else last
    stages = named or (*(each.map for each in trace.stage_maps if each.map is not last), last)
    return Observation(stages, last, entering, logits, targets, gradient, positions=outputs)


def _box_observation(trace: Trace, rematch: Rematch) -> Observation:
    named, last = named_maps(trace)
    body = tuple(each.map for each in trace.stage_maps)
    levels = tuple(level for level, _ in trace.levels)
    stages = named or (levels if len(levels) > 1 else body)
    if not stages:
        raise UserError(
            f"no feature map found in the detector; name some: {_NAMES} = {{'stages': [NAME, ...]}}"
        )
    last = (body or stages)[-1] if last is None else last
    nothing = last.new_empty(0)
    strides = tuple(trace.image_size[0] / stage.shape[2] for stage in stages)
    seen = Observation(
        stages, last, nothing, nothing, nothing, nothing, losses=trace.losses, strides=strides
    )
    if trace.matches is None:
        return seen
    rows = BoxRows(trace.matches)
    seen = replace(seen, logits=rows.logits(), targets=rows.classes, anchors=rows.anchors)
    if not rows.layers:
        return seen
    entering, linear = rows.head_input()
    return replace(
        seen, head_input=entering, class_gradient=_box_gradient(rows, entering, linear, rematch)
    )


def _box_gradient(rows: BoxRows, entering: Tensor, linear: bool, rematch: Rematch) -> Tensor:
    """Return the class gradient of a detector; zero for the background where it has no output."""
    logits, targets = rows.logits(), rows.classes
    if linear:
        gradient = linear_class_gradient(entering, logits, targets)
        return pad(gradient[1:], (0, 0, 1, 0)) if rows.matches.sigmoid else gradient
    weights = [layer.get_parameter("weight") for layer in rows.layers]
    return autograd_class_gradient(lambda: rows.logits(rematch()), logits, targets, *weights)


def _dense_classifier(trace: Trace, logits: Tensor) -> RanConvolution:
    """Return the convolution that the user named, or the last one with K outputs."""
    named = trace.layers.get("classifier")
    for each in reversed(trace.convolutions):
        if each.name == named or (named is None and each.output.shape[1] == logits.shape[1]):
            return each
    wanted = f"a convolution of {logits.shape[1]} outputs" if named is None else repr(named)
    raise NoClassifier(f"no classifier found: {wanted} is not among the last that ran; {_NAME_IT}")


def _maps(trace: Trace, classifier: str) -> tuple[tuple[Tensor, ...], Tensor]:
    """Return the maps that end the stages, and the last map."""
    stages, last = named_maps(trace)
    stages = stages or trace.stages(classifier)
    if last is None and not stages:
        raise UserError(f"no feature map found in the model; name one: {_NAMES} = {{'last': NAME}}")
    last = stages[-1] if last is None else last
    return stages or (last,), last


def named_maps(trace: Trace) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """Return the maps that the user named: the stages, none by default, and the last map."""
    stages = tuple(_named_map(trace, stage) for stage in trace.layers.get("stages", ()))
    return stages, _named_map(trace, trace.layers["last"]) if "last" in trace.layers else None


def _named_map(trace: Trace, name: str) -> Tensor:
    if name not in trace.named:
        raise UserError(f"layer {name!r} gave no output for the batch")
    output, _ = trace.named[name]
    features = as_map(output, trace.image_size)
    if features is None:
        raise UserError(f"layer {name!r} gives {describe(output)}, which is no feature map")
    return features


def _classifier(trace: Trace, logits: Tensor) -> tuple[str, Tensor]:
    """Return name and weight of the layer that gives the logits, or of the last with K outputs."""
    layers = {**trace.other_heads, **trace.weighted}
    if "classifier" in trace.layers:
        names = given = [trace.layers["classifier"]]
    else:
        given = [name for name, head in trace.heads.items() if head.gives(logits)]
        names = [*given, *reversed(layers)]
    for name in names:
        weight = getattr(layers.get(name), "weight", None)
        if isinstance(weight, Tensor) and len(weight) == logits.shape[1]:
            if name not in given:
                _warn_if_several(trace, name, logits.shape[1])
            return name, weight
    raise NoClassifier(
        f"no classifier found: no layer has a weight of {logits.shape[1]} outputs; {_NAME_IT}"
    )


def _warn_if_several(trace: Trace, taken: str, classes: int) -> None:
    """Warn which layer is taken if several linear layers contribute to the logits."""
    heads = [name for name, head in trace.heads.items() if head.output.shape[1] == classes]
    if len(heads) > 1:
        _log.warning(
            "several layers may be the classifier: %s; %s is taken, unless %s names another",
            ", ".join(heads),
            taken,
            _NAMES,
        )


def _autograd_cam_weights(
    model: nn.Module,
    trace: Trace,
    logits: Tensor,
    rerun: Rerun,
    targets: Tensor,
    classifier: str,
) -> Tensor:
    """Return the channel weights by a backward pass; without a graph a second pass records one."""
    name, source, enters = _source(trace, classifier)
    keep_graph = source.requires_grad and logits.requires_grad
    if not keep_graph:
        module = unwrapped(model).get_submodule(name)
        with cams.graph_from(module, source.shape, enters=enters) as sources:
            logits = rerun()
        source = sources[-1]
    gradient = cams.target_gradient(logits, targets, source, keep_graph=keep_graph)
    features = as_map(gradient, trace.image_size)
    assert features is not None
    return features.mean((2, 3))


def _source(trace: Trace, classifier: str) -> tuple[str, Tensor, bool]:
    """Return a module's name, its tensor that is the last map, and whether that is its input."""
    given = trace.layers
    named = [given["last"]] if "last" in given else given.get("stages", ())
    if named:
        return named[-1], trace.named[named[-1]][0], False
    last = trace.stages(classifier)[-1]
    for found in trace.stage_maps:
        if found.map is last:
            return found.name, found.origin, False
    return classifier, last, True  # a convolution that classifies


def _check_targets(targets: Tensor, logits: Tensor) -> None:
    dense = is_dense(targets)
    fitting = targets.shape[:1] if dense else targets.shape
    if fitting != logits.shape[:1] or targets.dtype != torch.int64:
        wanted = "a pixel" if dense else "an image"
        raise UserError(f"labels must be one int64 class index {wanted}, not {describe(targets)}")
    lowest = IGNORED if dense else 0
    for label in (int(targets.min()), int(targets.max())):
        if not lowest <= label < logits.shape[1]:
            raise UserError(f"label {label} does not fit a model with {logits.shape[1]} classes")
