"""One forward pass of any classifier, and everything that the metrics need from it.

Letters: B batch, K classes, C channels, D features, H x W positions, N tokens.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot
from torch.nn.modules.batchnorm import _NormBase

from diswot.errors import UserError
from diswot.observation import gradcam as cams
from diswot.observation.hooks import Layers, Trace, as_map, kind, run

_GUESS: Layers = {}

Rerun = Callable[[], Tensor]


@dataclass(frozen=True)
class Observation:
    """What one forward pass shows of a model on one labelled batch.

    Attributes:
        stages: The feature map that ends each resolution stage, B x C x H x W each, from the
            largest to the smallest. Tokens are laid out as a map, B x D x h x w.
        last: The map before global pooling, B x C x H x W.
        pooled: What enters the classifier, B x D.
        logits: B x K.
        labels: B.
        class_gradient: Gradient of the mean cross-entropy in the classifier's weight, K x D.
        cam_weights: How much each channel of `last` speaks for the sample's label, B x C, as in
            Grad-CAM. None where they would cost a pass more and were not asked for.
    """

    stages: tuple[Tensor, ...]
    last: Tensor
    pooled: Tensor
    logits: Tensor
    labels: Tensor
    class_gradient: Tensor
    cam_weights: Tensor | None = None


def observe(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    layers: Layers = _GUESS,
    cam: bool = False,
) -> Observation:
    """Run `model` once, without gradients, and return what was seen.

    Normalisation layers use the batch's statistics; dropout and stochastic depth are off. The
    model is left exactly as it was found: mode, running statistics, gradients, hooks, and the
    global random state, also when its forward pass raises.

    Args:
        model: Any classifier that maps images to one tensor of logits.
        images: B x 3 x H x W, on the model's device.
        labels: B, class indices below K.
        layers: Names of modules where the guess is wrong: `classifier` and `last` (a name each),
            `stages` (a list of names).
        cam: Whether `cam_weights` are wanted also where they cost another forward pass and a
            backward pass as far as the last map.

    Raises:
        UserError: No classifier or no feature map is found, a layer's name is unknown, or the
            images do not fit the model.
    """
    with recordable(images, labels) as (images, labels):

        def rerun() -> Tensor:
            with measuring(model):
                logits: Tensor = model(images)
            return logits

        with measuring(model):
            trace = run(model, images, layers)
        if trace.overwritten():
            with measuring(model):
                trace = run(model, images, layers, copy=True)
        return _observation(model, trace, rerun, labels, layers, cam)


def record(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    layers: Layers = _GUESS,
    cam: bool = False,
) -> Observation:
    """Observe the forward pass of a training step: the model's own mode, gradients kept.

    Arguments and errors as `observe`; in addition a map that the model itself overwrites in
    place, which would make the observation untrue, is an error.
    """
    trace = run(model, images, layers)
    if trace.overwritten():
        raise UserError("the model overwrites a stage's map in place; name other stages in layers")
    return _observation(model, trace, lambda: model(images), labels, layers, cam)


def _observation(
    model: nn.Module, trace: Trace, rerun: Rerun, labels: Tensor, layers: Layers, cam: bool
) -> Observation:
    logits = trace.logits
    assert logits is not None
    _check_labels(labels, logits)
    name, weight = _classifier(trace, logits, layers)
    stages, last = _maps(trace, name, layers)
    head = trace.heads.get(name)
    linear = head is not None and head.gives(logits)
    pooled = last.mean((2, 3)) if head is None else head.input
    if linear:
        gradient = linear_class_gradient(pooled, logits, labels)
    else:
        gradient = _autograd_class_gradient(rerun, logits, labels, weight)
    speaks = None
    if linear and cams.sees_the_mean(pooled, last):
        speaks = cams.linear_cam_weights(weight, labels, last)
    elif cam:
        speaks = _autograd_cam_weights(model, trace, rerun, labels, name, layers)
    return Observation(stages, last, pooled, logits, labels, gradient, speaks)


def _maps(trace: Trace, classifier: str, layers: Layers) -> tuple[tuple[Tensor, ...], Tensor]:
    """The maps that end the stages, and the last map."""
    stages = tuple(_named_map(trace, stage) for stage in layers.get("stages", ()))
    stages = stages or trace.stages(classifier)
    last = _named_map(trace, str(layers["last"])) if "last" in layers else None
    if last is None and not stages:
        raise UserError("no feature map found in the model; name one in layers['last']")
    last = stages[-1] if last is None else last
    return stages or (last,), last


def _named_map(trace: Trace, name: str) -> Tensor:
    if name not in trace.named:
        raise UserError(f"layer {name!r} gave no output for the batch")
    output, _ = trace.named[name]
    features = as_map(output, trace.image_size)
    if features is None:
        raise UserError(f"layer {name!r} gives {kind(output)}, which is no feature map")
    return features


def _classifier(trace: Trace, logits: Tensor, layers: Layers) -> tuple[str, Tensor]:
    """Name and weight of the layer that gives the logits, or else of the last with K outputs."""
    if "classifier" in layers:
        names = given = [str(layers["classifier"])]
    else:
        given = [name for name, head in trace.heads.items() if head.gives(logits)]
        names = given + [name for name in trace.weighted if name not in given][::-1]
    for name in names:
        weight = getattr(trace.weighted.get(name), "weight", None)
        if isinstance(weight, Tensor) and len(weight) == logits.shape[1]:
            if name not in given:
                _warn_of_several(trace, name, logits.shape[1])
            return name, weight
    raise UserError(
        f"no classifier found: no linear or convolutional layer has {logits.shape[1]} outputs; "
        "name it in layers['classifier']"
    )


def _warn_of_several(trace: Trace, taken: str, classes: int) -> None:
    """Say which one is taken where logits are made of several linear layers' outputs."""
    heads = [name for name, head in trace.heads.items() if head.output.shape[1] == classes]
    if len(heads) > 1:
        warnings.warn(
            f"several layers may be the classifier: {', '.join(heads)}; {taken} is taken, "
            "unless layers['classifier'] names another",
            stacklevel=2,
        )


def linear_class_gradient(pooled: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """Gradient of the mean cross-entropy in a linear classifier's weight, without autograd.

    Args:
        pooled: Inputs of the classifier, B x D.
        logits: Its outputs, which must be the model's, B x K.
        labels: B.

    Returns:
        (softmax(z) - onehot(y))^T h / B, K x D.
    """
    error = logits.float().softmax(1) - one_hot(labels, logits.shape[1])
    return error.T @ pooled.float() / len(labels)


def _autograd_class_gradient(
    rerun: Rerun, logits: Tensor, labels: Tensor, weight: Tensor
) -> Tensor:
    """The same where the head is not one linear layer: through the graph, rebuilt if need be."""
    if weight.is_inference():
        raise UserError("a model that was built in torch.inference_mode() has no gradients")
    keep_graph = logits.requires_grad
    needed = weight.requires_grad
    try:
        with torch.enable_grad():
            weight.requires_grad_(True)
            outputs = logits if keep_graph else rerun()
            loss = cross_entropy(outputs.float(), labels)
            (gradient,) = torch.autograd.grad(loss, weight, create_graph=keep_graph)
    finally:
        weight.requires_grad_(needed)
    return gradient.flatten(1)


def _autograd_cam_weights(
    model: nn.Module, trace: Trace, rerun: Rerun, labels: Tensor, classifier: str, layers: Layers
) -> Tensor:
    """Through the graph; where there is none, through one of a second pass from the map on."""
    name, source, enters = _source(trace, classifier, layers)
    logits = trace.logits
    assert logits is not None
    keep_graph = source.requires_grad and logits.requires_grad
    if not keep_graph:
        module = model.get_submodule(name)
        with cams.graph_from(module, source.shape, enters=enters) as sources:
            logits = rerun()
        source = sources[-1]
    slope = cams.label_slope(logits, labels, source, keep_graph=keep_graph)
    features = as_map(slope, trace.image_size)
    assert features is not None
    return features.mean((2, 3))


def _source(trace: Trace, classifier: str, layers: Layers) -> tuple[str, Tensor, bool]:
    """The module that gives the last map, its output, and whether it is its input instead."""
    named = [str(layers["last"])] if "last" in layers else list(layers.get("stages", ()))
    if named:
        return named[-1], trace.named[named[-1]][0], False
    last = trace.stages(classifier)[-1]
    for seen in trace.stack:
        if seen.map is last:
            return seen.name, seen.origin, False
    return classifier, last, True  # a convolution that classifies


@contextmanager
def recordable(images: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Without gradients, but such that a part may ask for them, also in `torch.inference_mode`.

    Yields:
        The images and labels, copied if they were made in that mode: no graph may hold such.
    """
    with torch.inference_mode(False), torch.no_grad():
        yield _normal(images), _normal(labels)


def _normal(tensor: Tensor) -> Tensor:
    return tensor.clone() if tensor.is_inference() else tensor


@contextmanager
def measuring(model: nn.Module) -> Iterator[None]:
    """Batch statistics, no dropout, nothing left behind; restores each module's own mode.

    Modes are written past `Module.__setattr__`, which takes longer than the layers of a small
    network. Where a module has a `train()` of its own, it is called on the way in and out: some
    drop caches there that were filled in evaluation mode.
    """
    modules = list(model.modules())
    modes = [module.training for module in modules]
    norms = [m for m in modules if isinstance(m, _NormBase)]
    statistics = [_statistics(norm) for norm in norms]
    special = any(type(m).train is not nn.Module.train for m in modules)
    own = (p for m in modules for p in m._parameters.values() if p is not None)
    devices = {p.device.index for p in own if p.is_cuda}
    with torch.random.fork_rng(devices=sorted(devices)):
        try:
            if special:
                model.eval()
            _set_modes(modules, [isinstance(module, _NormBase) for module in modules])
            for norm in norms:
                _set_statistics(norm, (False, None, None))
            yield
        finally:
            if special:
                model.train()
            _set_modes(modules, modes)
            for norm, kept in zip(norms, statistics, strict=True):
                _set_statistics(norm, kept)


_Statistics = tuple[bool, Tensor | None, Tensor | None]


def _set_modes(modules: list[nn.Module], modes: list[bool]) -> None:
    for module, mode in zip(modules, modes, strict=True):
        vars(module)["training"] = mode


def _statistics(norm: _NormBase) -> _Statistics:
    return norm.track_running_stats, norm.running_mean, norm.running_var


def _set_statistics(norm: _NormBase, statistics: _Statistics) -> None:
    vars(norm)["track_running_stats"] = statistics[0]
    for name, value in zip(("running_mean", "running_var"), statistics[1:], strict=True):
        if name in norm._buffers:
            norm._buffers[name] = value


def _check_labels(labels: Tensor, logits: Tensor) -> None:
    if labels.shape != logits.shape[:1] or labels.dtype != torch.int64:
        raise UserError(f"labels must be one int64 class index an image, not {kind(labels)}")
    for label in (int(labels.min()), int(labels.max())):
        if not 0 <= label < logits.shape[1]:
            raise UserError(f"label {label} does not fit a model with {logits.shape[1]} classes")
