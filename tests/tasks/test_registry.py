from __future__ import annotations

import math

import pytest
import torch

from diswot.observation.rows import IGNORED
from diswot.tasks.registry import TASKS, find_result


def test_accuracy_is_the_share_of_right_images() -> None:
    row = TASKS["classification"]
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]])
    counts = row.count(logits, torch.tensor([0, 1, 1]))
    assert row.results(counts, 2).means == {"test_accuracy": pytest.approx(200 / 3)}
    more = row.combine([counts, row.count(logits[:1], torch.tensor([0]))])
    assert row.results(more, 2).means == {"test_accuracy": 75}


def test_mean_iou_by_hand() -> None:
    """Class 0: 2 pixels of which 1 is hit, 1 false; class 1: 1 of 2 hit, 1 false; class 2: none."""
    row = TASKS["segmentation"]
    predicted = torch.tensor([[[0, 1, 0, 1, 2]]])
    logits = torch.nn.functional.one_hot(predicted, 4).permute(0, 3, 1, 2).float()
    counts = row.count(logits, torch.tensor([[[0, 0, 1, 1, IGNORED]]]))
    means, ious = row.results(counts, 4)
    assert ious is not None
    assert ious.tolist() == pytest.approx([100 / 3, 100 / 3, math.nan, math.nan], nan_ok=True)
    assert means == {"test_miou": pytest.approx(100 / 3)}


def test_logits_of_a_smaller_grid_are_enlarged() -> None:
    row = TASKS["segmentation"]
    logits = torch.tensor([[[[9.0, -9.0]], [[-9.0, 9.0]]]])
    counts = row.count(logits, torch.tensor([[[0, 0, 1, 1], [0, 0, 1, 1]]]))
    assert row.results(counts, 2).means == {"test_miou": 100}


def test_tasks_are_listed() -> None:
    assert list(TASKS) == ["classification", "segmentation", "detection"]


@pytest.mark.parametrize(
    ("record", "measure", "percent"),
    [
        ({"loss": 1.0, "test_accuracy": 71.5}, "test accuracy", 71.5),
        ({"test_accuracy": None, "test_miou": 40}, "test mIoU", 40),
        ({"test_map": 12.5, "test_map50": 30.0}, "test mAP", 12.5),
        ({"test_agreement": 8.0}, "test agreement", 8.0),
    ],
)
def test_the_result_of_a_record(record: dict[str, object], measure: str, percent: float) -> None:
    found = find_result(record)
    assert found is not None
    assert (found.measure, found.percent) == (measure, percent)
    assert found.kind == measure.removeprefix("test ")


@pytest.mark.parametrize("record", [{}, {"test_miou": "much"}, {"test_accuracy": math.nan}])
def test_a_record_without_a_result(record: dict[str, object]) -> None:
    assert find_result(record) is None
