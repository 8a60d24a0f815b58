"""Observation of torchvision's own detectors, unchanged."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchvision.models import get_model

from diswot.knowledge.registry import KNOWLEDGE
from diswot.observation.box_rows import BoxRows
from diswot.observation.detectors import run_detector, run_matching
from diswot.observation.modes import measuring
from diswot.observation.observe import observe

CLASSES = 3
SIDE = 320
EXACT = {"weights": None, "weights_backbone": None, "num_classes": CLASSES + 1}
SIZES = {"min_size": SIDE, "max_size": SIDE}

# name: options, strides of the levels, width of the last map, width of what enters the classifier
SSDLITE = ("ssdlite320_mobilenet_v3_large", {}, (16, 32, 64, 320 / 3, 160, 320), 480, 2304)
SLOW = (
    ("fcos_resnet50_fpn", SIZES, (8, 16, 32, 64, 320 / 3), 2048, 2304),
    ("retinanet_resnet50_fpn", SIZES, (8, 16, 32, 64, 320 / 3), 2048, 2304),
    ("fasterrcnn_mobilenet_v3_large_fpn", SIZES, (32, 32, 64), 960, 1024),
)
Case = tuple[str, dict[str, int], tuple[float, ...], int, int]

cases = pytest.mark.parametrize(
    "case",
    [SSDLITE, *(pytest.param(case, marks=pytest.mark.slow) for case in SLOW)],
    ids=lambda case: case[0],
)


def boxes() -> tuple[Tensor, Tensor]:
    images = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    one = [[20, 30, 120, 150, 0, 0], [150, 100, 310, 300, 2, 0]]
    other = [[60, 60, 90, 100, 1, 0], [0, 0, 0, 0, -1, 0]]
    return images, torch.tensor([one, other], dtype=torch.float32)


def built(case: Case) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = get_model(case[0], **EXACT, **case[1])
    return model


@cases
def test_what_a_detector_shows(case: Case) -> None:
    model, (images, targets) = built(case), boxes()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    seen = observe(model, images, targets)
    assert seen.strides == pytest.approx(case[2])
    assert seen.last.shape[1] == case[3]
    assert seen.head_input.shape[1] == case[4]
    assert seen.targets.max() == CLASSES and (seen.targets == 0).sum() >= (seen.targets > 0).sum()
    with measuring(model):
        losses = run_detector(model, images, targets)
    with measuring(model):  # which begins the random numbers anew
        _, matches = run_matching(model, images, targets)
    assert seen.losses is not None
    for name, value in losses.items():
        torch.testing.assert_close(seen.losses[name], value.detach(), rtol=1e-4, atol=1e-5)
    assert matches is not None
    rows = BoxRows(matches)
    weights = [layer.weight for layer in rows.layers]
    found = torch.autograd.grad(cross_entropy(rows.logits(), rows.classes), weights)
    summed = [g.reshape(-1, CLASSES + 1, g[0].numel()).sum(0) for g in found]
    torch.testing.assert_close(seen.class_gradient, torch.cat(summed, 1), rtol=1e-3, atol=1e-6)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in state.items())


@pytest.mark.slow
def test_levels_of_a_teacher_and_another_student_are_compared() -> None:
    teacher, student = (observe(built(case), *boxes()) for case in (SLOW[1], SSDLITE))
    for name in ("pkd", "cwd", "mgd", "fitnet", "at", "sp", "semantic_class", "relation"):
        assert float(KNOWLEDGE[name].between(teacher, student)) > 0, name
