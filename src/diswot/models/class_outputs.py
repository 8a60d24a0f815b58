"""The outputs of a network that belong to classes, and those of a student that take a teacher's.

Letters: K classes, A anchors of a position.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from diswot.errors import UserError
from diswot.models.channels import repeated
from diswot.models.correspondence import LayerPair, classifier
from diswot.models.weighted_layers import WeightedLayer, weighted_layers

_CLASSIFIES = "ClassificationHead"  # end of class names of torchvision


class ClassOutputs(NamedTuple):
    """The outputs of a layer: for each anchor the background, then the classes.

    Attributes:
        layer: The layer.
        classes: Number of classes, K; 0 where the outputs belong to no class.
        background: 1 if the first output of an anchor is the background's, else 0.
        anchors: Number of anchors, A.
        unit: Outputs of a class, such as the 4 numbers of a box.
    """

    layer: WeightedLayer
    classes: int
    background: int = 0
    anchors: int = 1
    unit: int = 1


def class_outputs(model: nn.Module, layers: Sequence[WeightedLayer]) -> list[ClassOutputs]:
    """Return the last layers of a network: those of torchvision's detectors, or the classifiers.

    The layers are all those with weights, in order.
    """
    of = {layer.module: layer for layer in layers}
    found = [(of[each], row) for each, *row in _of_detector(model) if each in of]
    if found:
        return [ClassOutputs(layer, *row) for layer, row in found]
    last = classifier(layers)
    if last is None:
        return []
    beside = [layer for layer in layers if layer.is_map and _is_beside(layer, last)]
    return [ClassOutputs(layer, layer.outputs) for layer in beside]


def _of_detector(model: nn.Module) -> Iterator[tuple[Any, ...]]:
    """Yield the last layers of a detector with their classes, background, anchors and unit."""
    for module in model.modules():
        own: Any = module
        kind = type(module).__name__
        if kind.endswith(_CLASSIFIES) and hasattr(module, "cls_logits"):
            yield own.cls_logits, own.num_classes - 1, 1, own.num_anchors, 1
        elif kind.endswith("RegressionHead") and hasattr(module, "bbox_reg"):
            yield from ((getattr(module, name, None), 0) for name in ("bbox_reg", "bbox_ctrness"))
        elif hasattr(module, "cls_score") and hasattr(module, "bbox_pred"):
            classes = own.cls_score.out_features - 1
            yield own.cls_score, classes, 1
            yield own.bbox_pred, classes, 1, 1, 4
        elif hasattr(module, "module_list") and hasattr(module, "num_columns"):
            for level in own.module_list:  # of SSD: classes and background, or the 4 of a box
                last = level[-1] if isinstance(level, nn.Sequential) else level
                anchors = last.out_channels // own.num_columns
                if kind.endswith(_CLASSIFIES):
                    yield last, own.num_columns - 1, 1, anchors, 1
                else:
                    yield last, 0


def _is_beside(layer: WeightedLayer, last: WeightedLayer) -> bool:
    """Say whether a layer is the last one, or beside it, such as DeiT's second head."""
    sizes = [(each.kind, each.inputs, each.outputs) for each in (layer, last)]
    return layer is last or (sizes[0] == sizes[1] and last.name.startswith(layer.name))


def output_maps(
    teacher: Sequence[ClassOutputs],
    student: Sequence[ClassOutputs],
    pairs: Sequence[LayerPair],
    teacher_classes: Sequence[str] | None,
    student_classes: Sequence[str] | None,
) -> dict[WeightedLayer, Tensor | None]:
    """Return the teacher's output of each output of the student's last layers, or -1.

    None stands for a layer whose outputs are none of the teacher's. Names of classes are None if
    both have the same.

    Raises:
        UserError: The names are not as many as the classes.
    """
    _check_names("teacher", teacher, teacher_classes)
    _check_names("student", student, student_classes)
    given, of = {each.layer: each for each in teacher}, dict(pairs)
    places = {name: place for place, name in enumerate(teacher_classes or ())}
    found: dict[WeightedLayer, Tensor | None] = {}
    for own in student:
        source = of.get(own.layer)
        other = given.get(source) if source is not None else None
        if other is None or own[2:] != other[2:]:
            found[own.layer] = None
        elif not own.classes or teacher_classes is None or student_classes is None:
            same = own.layer.outputs == other.layer.outputs
            found[own.layer] = torch.arange(own.layer.outputs) if same else None
        else:
            classes = torch.tensor([places.get(name, -1) for name in student_classes])
            found[own.layer] = _outputs(classes, own, other)
    return found


def select_detector_classes(model: nn.Module, classes: Sequence[int]) -> bool:
    """Cut the outputs of a detector of torchvision down to some of its classes, in another order.

    Classes count from 0. Any other network is not changed.

    Returns:
        Whether the network is such a detector.
    """
    found = [each for each in class_outputs(model, weighted_layers(model)) if each.background]
    for each in found:
        keep_outputs(each.layer.module, _outputs(torch.as_tensor(classes), each, each))
    heads = [each for each in model.modules() if type(each).__name__.endswith(_CLASSIFIES)]
    for head, name in product(heads, ("num_classes", "num_columns")):
        if found and hasattr(head, name):
            setattr(head, name, len(classes) + 1)
    return bool(found)


def keep_outputs(layer: Any, chosen: Tensor) -> None:
    """Cut a convolution or a linear layer down to some of its outputs, in another order."""
    for name in ("weight", "bias"):
        if (old := getattr(layer, name)) is not None:
            setattr(layer, name, nn.Parameter(old.detach()[chosen.to(old.device)].clone()))
    setattr(layer, "out_channels" if layer.weight.ndim > 2 else "out_features", len(chosen))


def _outputs(classes: Tensor, own: ClassOutputs, other: ClassOutputs) -> Tensor:
    """Return the map of all outputs of a layer, from the map of its classes."""
    if own.background:
        classes = torch.cat((torch.zeros(1, dtype=torch.int64), classes + (classes >= 0)))
    inner = repeated(classes, own.unit, torch.arange(own.unit))
    width = (other.classes + other.background) * own.unit
    return repeated(torch.arange(own.anchors), width, inner)


def _check_names(role: str, outputs: Sequence[ClassOutputs], names: Sequence[str] | None) -> None:
    counts: Mapping[int, None] = dict.fromkeys(each.classes for each in outputs if each.classes)
    for count in counts:
        if names is not None and len(names) != count:
            raise UserError(f"{len(names)} class names for the {count} classes of the {role}")
