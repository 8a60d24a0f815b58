"""The mean average precision of known cases."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import (
    fasterrcnn_mobilenet_v3_large_320_fpn,
    fcos_resnet50_fpn,
    retinanet_resnet50_fpn,
    ssdlite320_mobilenet_v3_large,
)

from diswot.observation.rows import IGNORED
from diswot.tasks.detection import DETECTIONS, head_classes
from diswot.tasks.registry import TASKS

ROW = TASKS["detection"]
Boxes = list[tuple[tuple[float, ...], int, float]]


def found(boxes: Boxes) -> dict[str, Tensor]:
    """Return what a torchvision detector gives for an image; classes count from 0 here."""
    return {
        "boxes": torch.tensor([box for box, _, _ in boxes]).view(-1, 4),
        "labels": torch.tensor([label + 1 for _, label, _ in boxes], dtype=torch.int64),
        "scores": torch.tensor([score for _, _, score in boxes]),
    }


def true(boxes: Boxes, most: int = 3) -> Tensor:
    """Return targets, 1 x M x 6; the third value of a box is the crowd flag."""
    rows = [[*box, label, crowd] for box, label, crowd in boxes]
    return torch.tensor([rows + [[IGNORED] * 6] * (most - len(rows))], dtype=torch.float32)


def counted(predicted: Boxes, truth: Boxes) -> Tensor:
    return ROW.count(ROW.predictions([found(predicted)]), true(truth))


A, B, C = (0.0, 0.0, 10.0, 10.0), (20.0, 20.0, 40.0, 40.0), (50.0, 50.0, 60.0, 60.0)


def test_a_found_box_a_missed_one_and_a_false_one() -> None:
    """Precision is 1 up to a recall of 1/2 and 0 above: 51 of the 101 recalls from 0 to 1."""
    counts = counted([(A, 0, 0.9), (C, 0, 0.8)], [(A, 0, 0), (B, 0, 0)])
    expected = pytest.approx(100 * 51 / 101)
    assert ROW.results(counts, 4).means == {"test_map": expected, "test_map50": expected}


def test_a_false_box_of_a_higher_score_halves_the_precision() -> None:
    counts = counted([(A, 0, 0.8), (C, 0, 0.9)], [(A, 0, 0)])
    assert ROW.results(counts, 4).means["test_map"] == pytest.approx(50)


def test_a_box_beside_its_place_counts_up_to_its_overlap() -> None:
    """The IoU is 0.79, so that the box is right for 6 of the 10 thresholds: 0.5 to 0.75."""
    counts = counted([((0.0, 0.0, 10.0, 7.9), 0, 0.9)], [(A, 0, 0)])
    assert ROW.results(counts, 4).means == {
        "test_map": pytest.approx(60),
        "test_map50": pytest.approx(100),
    }


@pytest.mark.parametrize("crowd", [0.0, 1.0])
def test_a_crowd_is_neither_found_nor_missed(crowd: float) -> None:
    counts = counted([(A, 0, 0.8), (C, 0, 0.9)], [(A, 0, 0), (B, 0, 1), (C, 0, crowd)])
    assert ROW.results(counts, 4).means["test_map"] == pytest.approx(100)


def test_classes_are_apart() -> None:
    """Class 0 is found, class 1 is not, class 2 has no true box, and class 3 never occurs."""
    counts = counted([(A, 0, 0.9), (B, 2, 0.8)], [(A, 0, 0), (B, 1, 0)])
    means, precisions = ROW.results(counts, 4)
    assert means["test_map"] == pytest.approx(50) and precisions is not None
    assert precisions.tolist() == pytest.approx([100, 0, math.nan, math.nan], nan_ok=True)


def test_scores_are_ranked_over_all_images() -> None:
    """A false box of another image with a higher score comes first: the precision is 1/2."""
    right, wrong = counted([(A, 0, 0.8)], [(A, 0, 0)]), counted([(C, 0, 0.9)], [])
    assert ROW.results(ROW.combine([right, wrong]), 4).means["test_map"] == pytest.approx(50)
    assert ROW.results(ROW.combine([wrong, right]), 4).means["test_map"] == pytest.approx(50)


def test_images_without_boxes() -> None:
    nothing = counted([], [])
    assert nothing.shape == (1, DETECTIONS + 3, 6)
    assert all(math.isnan(each) for each in ROW.results(nothing, 4).means.values())
    assert ROW.results(counted([], [(A, 0, 0)]), 4).means["test_map"] == 0


def test_the_boxes_of_the_highest_scores_are_kept() -> None:
    many = [((float(i), 0.0, i + 1.0, 1.0), 0, i / 200) for i in range(120)]
    kept = ROW.predictions([found(many)])
    assert kept.shape == (1, DETECTIONS, 6)
    assert kept[0, 0, 0] == 119 and kept[0, -1, 0] == 20


@pytest.mark.parametrize(
    "build",
    [
        fcos_resnet50_fpn,
        retinanet_resnet50_fpn,
        ssdlite320_mobilenet_v3_large,
        fasterrcnn_mobilenet_v3_large_320_fpn,
    ],
)
def test_the_classes_of_a_head(build: object) -> None:
    assert callable(build)
    with torch.device("meta"):
        model = build(num_classes=4, weights=None, weights_backbone=None)
    assert isinstance(model, nn.Module) and head_classes(model) == 4
    assert head_classes(nn.Linear(2, 2)) is None
