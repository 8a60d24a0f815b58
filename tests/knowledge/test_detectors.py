"""Every distance on a pair of detectors: it works, or says in one line why not."""

from __future__ import annotations

import copy
import math
from functools import cache

import pytest
import torch
from detectors import ALL, Other, batch
from torch import nn

from diswot.errors import UserError
from diswot.knowledge.adapters import adapt
from diswot.knowledge.losses import Losses
from diswot.knowledge.registry import KNOWLEDGE
from diswot.knowledge.stages import pair_stages
from diswot.models.initialization import fresh
from diswot.observation.observe import Observation, observe, record

NEEDS_ANCHORS = {name for name, row in KNOWLEDGE.items() if row.outputs_alone} | {
    "rkd",
    "pkt",
    "cc",
}
NEEDS_WIDTH, NEEDS_LABELS = {"semantic"}, {"gradcam"}

rows = pytest.mark.parametrize("name", KNOWLEDGE)


@cache
def model(name: str, width: int) -> nn.Module:
    return fresh(lambda: (ALL | {"other": Other})[name](width), "kaiming", width)


@cache
def seen(name: str, width: int) -> Observation:
    return observe(model(name, width), *batch(3), cam=True)


def refused(name: str, teacher: Observation, student: Observation, message: str) -> None:
    for role in (KNOWLEDGE[name].between, Losses({name: 1.0}, teacher, student)):
        with pytest.raises(UserError, match=message) as caught:
            role(teacher, student)
        assert "\n" not in str(caught.value)


@rows
@pytest.mark.parametrize("kind", ["fcos", "retinanet", "ssd"])
def test_detectors_with_the_same_anchors(kind: str, name: str) -> None:
    teacher, student = seen(kind, 6), seen(kind, 4)
    if name in NEEDS_LABELS:
        refused(name, teacher, student, "gradcam needs one label an image")
        return
    if kind == "ssd" and name in NEEDS_WIDTH:  # the head reads the widths of the backbone
        refused(name, teacher, student, "semantic needs classifiers of one shape")
        return
    distance = float(KNOWLEDGE[name].between(teacher, student))
    assert math.isfinite(distance) and distance > 1e-7
    itself = float(KNOWLEDGE[name].between(teacher, teacher))
    assert itself < distance or name in ("ab", "wttm")


@rows
def test_detectors_with_other_anchors(name: str) -> None:
    teacher, student = seen("retinanet", 6), seen("fcos", 4)
    if name in NEEDS_ANCHORS:
        refused(name, teacher, student, f"{name} needs detectors with the same anchors")
    elif name not in NEEDS_LABELS:
        assert float(KNOWLEDGE[name].between(teacher, student)) > 1e-7


@rows
def test_proposals_are_no_shared_anchors(name: str) -> None:
    teacher, student = seen("faster_rcnn", 6), seen("faster_rcnn", 4)
    if name in NEEDS_ANCHORS:
        refused(name, teacher, student, f"{name} needs detectors with the same anchors")
    elif name not in NEEDS_LABELS:
        assert float(KNOWLEDGE[name].between(teacher, student)) > 1e-7


@rows
def test_a_teacher_whose_matches_are_not_shown(name: str) -> None:
    teacher, student = seen("other", 6), seen("fcos", 4)
    if name in NEEDS_ANCHORS | {"semantic", "semantic_class"}:
        refused(name, teacher, student, "the teacher does not show")
    elif name not in NEEDS_LABELS:
        assert float(KNOWLEDGE[name].between(teacher, student)) > 1e-7


def test_all_losses_in_a_step_of_training() -> None:
    teacher, student = copy.deepcopy(model("fcos", 6)).eval(), copy.deepcopy(model("fcos", 4))
    fitting = [name for name in KNOWLEDGE if name not in NEEDS_LABELS]
    losses = Losses(dict.fromkeys(fitting, 1.0), seen("fcos", 6), seen("fcos", 4))
    images, targets = batch(3, seed=1)
    with torch.no_grad():
        taught = record(teacher, images, targets)
    ours = record(student.train(), images, targets)
    found = losses(taught, ours)
    assert found.keys() == set(fitting)
    for name, value in found.items():
        slopes = torch.autograd.grad(
            value, list(student.parameters()), retain_graph=True, allow_unused=True
        )
        assert any(s is not None and s.isfinite().all() and s.any() for s in slopes), name


def test_rows_of_detectors_with_the_same_anchors_are_the_same() -> None:
    teacher, student = seen("retinanet", 6), seen("retinanet", 4)
    assert torch.equal(teacher.anchors, student.anchors)
    assert torch.equal(teacher.targets, student.targets)


def test_levels_of_one_stride_are_compared() -> None:
    teacher, student = seen("fcos", 6), seen("ssd", 4)  # strides 4, 8, 16 and 8, 16, 32
    pairs = pair_stages(teacher, student)
    assert [(a.shape[2], b.shape[2]) for a, b in pairs] == [(8, 8), (4, 4)]
    adapted = adapt(KNOWLEDGE["pkd"].adapter, teacher, student)
    assert [stage.shape for stage in adapted[0].stages] == [
        stage.shape for stage in adapted[1].stages
    ]


def test_shared_classes_keep_the_background() -> None:
    """The teacher's first two classes are the student's in the other order; the third is none."""
    teacher, student = seen("fcos", 6), seen("fcos", 4)
    losses = Losses({"kd": 1.0}, teacher, student, classes=[1, 0, -1])
    z_t, z_s = teacher.logits[:, [0, 1, 2]], student.logits[:, [0, 2, 1]]
    p, q = (z_t / 4).log_softmax(1), (z_s / 4).log_softmax(1)
    expected = 16 * (p.exp() * (p - q)).sum(1).mean()
    torch.testing.assert_close(losses(teacher, student)["kd"], expected)
