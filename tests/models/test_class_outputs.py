"""What detectors inherit: levels from the coarsest, convolutions by depth, outputs by class."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import nn

from diswot.errors import UserError
from diswot.models.class_names import select_classes
from diswot.models.class_outputs import class_outputs
from diswot.models.detectors import build_detector
from diswot.models.inheritance import Inheritance, inherit
from diswot.models.registry import create_teacher
from diswot.models.weighted_layers import outline

NAMES = ["a", "b", "c"]
HEADS = {
    "fcos_resnet50_fpn": [(3, 1, 1, 1), (0, 0, 1, 1), (0, 0, 1, 1)],
    "retinanet_resnet50_fpn": [(3, 1, 9, 1), (0, 0, 1, 1)],
    "ssdlite320_mobilenet_v3_large": [(3, 1, 6, 1)] * 6 + [(0, 0, 1, 1)] * 6,
    "fasterrcnn_mobilenet_v3_large_fpn": [(3, 1, 1, 1), (3, 1, 1, 4)],
}


def detector(
    heads: str = "fcos", width: int = 64, depth: int = 4, height: int = 64, classes: int = 3
) -> nn.Module:
    network = timm.create_model("test_resnet", num_classes=classes)
    return build_detector(
        network, heads, classes, height, "it", width=width, head_width=width, head_depth=depth
    )


def sources(found: Inheritance) -> dict[str, str]:
    return {row.module: row.source for row in found.rows}


@pytest.mark.parametrize("name", HEADS)
def test_last_layers_of_torchvisions_detectors(name: str) -> None:
    with torch.device("meta"):
        model = create_teacher(f"torchvision:{name}", 3, 64)
    found = class_outputs(model, outline(model).layers)
    assert [each[1:] for each in found] == HEADS[name]
    for each in found:
        if each.classes:
            outputs = each.anchors * (each.classes + each.background) * each.unit
            assert each.layer.outputs == outputs


@pytest.mark.parametrize("heads", ["fcos", "retinanet"])
def test_an_equal_detector_finds_the_teachers_boxes(heads: str) -> None:
    teacher, student = detector(heads), detector(heads)
    found = inherit(teacher, student)
    assert found.share == 1
    assert all(torch.equal(v, student.state_dict()[k]) for k, v in teacher.state_dict().items())


def test_fewer_convolutions_and_levels() -> None:
    """Of 4 convolutions the first and the last are taken; a level has the teacher's stride."""
    teacher, student = detector(height=64), detector(width=32, depth=2, height=192)
    found = inherit(teacher, student, channels="even")
    of = sources(found)
    assert of["head.classification_head.conv.0"] == "head.classification_head.conv.0"
    assert of["head.classification_head.conv.3"] == "head.classification_head.conv.9"
    assert of["head.regression_head.conv.4"] == "head.regression_head.conv.10"
    fpn = "backbone.fpn.inner_blocks"
    assert [of[f"{fpn}.{i}.0"] for i in range(3)] == [f"{fpn}.{i}.0" for i in (1, 2, 3)]
    own, given = student.get_parameter, teacher.get_parameter
    name = "head.classification_head.conv.{}.weight"
    assert torch.equal(own(name.format(3)), given(name.format(9))[::2, ::2])
    name = "head.classification_head.cls_logits.weight"
    assert torch.equal(own(name), given(name)[:, ::2])


def test_heads_of_another_kind_lend_what_is_before_the_outputs() -> None:
    """RetinaNet has 9 anchors where FCOS has a point."""
    found = inherit(detector("fcos"), detector("retinanet"))
    of = sources(found)
    assert of["head.classification_head.conv.1.0"] == "head.classification_head.conv.3"
    assert of["head.classification_head.cls_logits"] == of["head.regression_head.bbox_reg"] == ""


@pytest.mark.parametrize("heads", ["fcos", "retinanet"])
def test_classes_by_name(heads: str) -> None:
    """The student's classes are c, d and a; of each anchor output 0 is the background."""
    teacher, student = detector(heads), detector(heads)
    own, given = (
        m.get_parameter("head.classification_head.cls_logits.bias") for m in (student, teacher)
    )
    with torch.no_grad():
        given.copy_(torch.arange(len(given)))
        own.fill_(-1)
    inherit(teacher, student, teacher_classes=NAMES, student_classes=["c", "d", "a"])
    by_anchor = own.reshape(-1, 4)
    expected = given.reshape(-1, 4)[:, [0, 3, 0, 1]].clone()
    expected[:, 2] = -1
    assert torch.equal(by_anchor, expected)


def test_boxes_of_classes_by_name() -> None:
    """Faster R-CNN has 4 outputs of a box for each class."""
    name = "torchvision:fasterrcnn_mobilenet_v3_large_fpn"
    teacher, student = create_teacher(name, 3, 64), create_teacher(name, 1, 64)
    inherit(teacher, student, channels="even", teacher_classes=NAMES, student_classes=["b"])
    own, given = (
        m.get_parameter("roi_heads.box_predictor.bbox_pred.weight") for m in (student, teacher)
    )
    assert torch.equal(own, given[[0, 1, 2, 3, 8, 9, 10, 11]])


def test_other_numbers_of_classes_without_names() -> None:
    found = inherit(detector(), detector(classes=2))
    of = sources(found)
    assert of["head.classification_head.cls_logits"] == ""
    assert of["head.regression_head.bbox_reg"] == "head.regression_head.bbox_reg"


def test_names_that_do_not_fit() -> None:
    with pytest.raises(UserError, match="2 class names for the 3 classes of the student"):
        inherit(detector(), detector(), teacher_classes=NAMES, student_classes=["a", "b"])


def test_statistics_are_estimated_on_batches() -> None:
    teacher, student = detector(), detector(width=32)
    found = inherit(teacher, student, [(torch.randn(2, 3, 64, 64), torch.zeros(2, 1, 6))])
    assert found.images == 2


@pytest.mark.parametrize("name", HEADS)
def test_a_detector_is_cut_down_to_some_classes(name: str) -> None:
    """What it says of the background, c and a stays; boxes of classes go with them."""
    model = create_teacher(f"torchvision:{name}", 3, 64).eval()
    whole = copy.deepcopy(model)
    select_classes(model, [2, 0], (3, 64, 64))
    given, own = (class_outputs(m, outline(m).layers) for m in (whole, model))
    assert [each.classes for each in own] == [2 * bool(each.classes) for each in given]
    for before, after in zip(given, own, strict=True):
        weight, cut = (each.layer.weights["weight"][0] for each in (before, after))
        if before.classes:
            shape = before.anchors, 4, before.unit, *weight.shape[1:]
            weight = weight.reshape(shape)[:, [0, 3, 1]].reshape(cut.shape)
        assert torch.equal(weight, cut)
    boxes = {"boxes": torch.tensor([[4.0, 6.0, 40.0, 50.0]]), "labels": torch.tensor([2])}
    losses = model.train()([torch.randn(3, 64, 64)] * 2, [boxes, boxes])
    assert all(loss.isfinite() for loss in losses.values())
    assert all((each["labels"] <= 2).all() for each in model.eval()(torch.randn(2, 3, 64, 64)))
