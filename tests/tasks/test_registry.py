from __future__ import annotations

import math

import pytest
import torch

from diswot.observation.rows import IGNORED
from diswot.tasks.registry import TASKS, class_ious, list_tasks


def test_accuracy_is_the_share_of_right_images() -> None:
    row = TASKS["classification"]
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]])
    counts = row.count(logits, torch.tensor([0, 1, 1]))
    assert row.percent(counts) == pytest.approx(200 / 3)
    more = counts + row.count(logits[:1], torch.tensor([0]))
    assert row.percent(more) == 75


def test_mean_iou_by_hand() -> None:
    """Class 0: 2 pixels of which 1 is hit, 1 false; class 1: 1 of 2 hit, 1 false; class 2: none."""
    row = TASKS["segmentation"]
    predicted = torch.tensor([[[0, 1, 0, 1, 2]]])
    logits = torch.nn.functional.one_hot(predicted, 4).permute(0, 3, 1, 2).float()
    counts = row.count(logits, torch.tensor([[[0, 0, 1, 1, IGNORED]]]))
    ious = class_ious(counts).tolist()
    assert ious[:2] == pytest.approx([100 / 3, 100 / 3])
    assert all(math.isnan(each) for each in ious[2:])
    assert row.percent(counts) == pytest.approx(100 / 3)


def test_logits_of_a_smaller_grid_are_enlarged() -> None:
    row = TASKS["segmentation"]
    logits = torch.tensor([[[[9.0, -9.0]], [[-9.0, 9.0]]]])
    assert row.percent(row.count(logits, torch.tensor([[[0, 0, 1, 1], [0, 0, 1, 1]]]))) == 100


def test_tasks_are_listed() -> None:
    assert list_tasks() == ["classification", "segmentation"]
