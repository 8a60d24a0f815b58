"""Short trainings as a run folder records them, compared at equal epochs."""

from __future__ import annotations

from typing import Any

import pytest

from diswot.runs.verification import verification


def row(trial: int, *accuracies: float, **more: Any) -> dict[str, Any]:
    return {
        "student": {"params": {"width": trial}, "score": -trial},
        "accuracy": accuracies[-1],
        "accuracies": list(accuracies),
        "epochs": len(accuracies),
        "changes": {},
        "trial": trial,
        "interval": [accuracies[-1] - 3, accuracies[-1] + 3],
        **more,
    }


ROWS = [row(0, 40, 50, 60), row(3, 41, 52, 58), row(1, 30, 45, 50), row(2, 35), row(4, 20)]
FACTS = {"trained": ROWS, "tied": [3], "failed": 1, "held_out": 500}


def test_accuracies_are_of_the_epochs_that_a_training_ended_at() -> None:
    tried = verification({"verified": FACTS})

    assert tried is not None
    assert (tried.epochs, tried.held_out, tried.failed) == ((1, 3), 500, 1)
    assert [each.by_epoch for each in tried.rows] == [
        {1: 40, 3: 60},
        {1: 41, 3: 58},
        {1: 30, 3: 50},
        {1: 35},
        {1: 20},
    ]
    assert [each.outcome for each in tried.rows] == [
        "winner",
        "interval overlaps",
        "behind",
        *["stopped after 1 epoch"] * 2,
    ]
    assert tried.standing() == (
        "after 3 epochs (95 % interval 57.00 to 63.00 %); of the others, 1 with an overlapping "
        "interval, 1 behind, 2 stopped early, 1 failed"
    )


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ([0, 0], "the trainings began with random weights"),
        ([1, 1], "the trainings began with weights of the teacher, 100% of the parameters"),
        (
            [0.75, 1, 0],
            "2 of 3 trainings began with weights of the teacher, 75% to 100% of the parameters; "
            "the others with random weights",
        ),
    ],
)
def test_starts(shares: list[float], said: str) -> None:
    starts = [{"from": "teacher", "share": each} if each else {"from": "fresh"} for each in shares]
    rows = [row(trial, 50, start=start) for trial, start in enumerate(starts)]
    tried = verification({"verified": {"trained": rows}})
    assert tried is not None and tried.starts() == said


@pytest.mark.parametrize(
    ("accuracy", "said"),
    [
        (70, "70.00 % (67.00 to 73.00 %), ahead"),
        (63, "63.00 % (60.00 to 66.00 %), the difference is within the intervals"),
        (56, "56.00 % (53.00 to 59.00 %), the difference is within the intervals"),
        (50, "50.00 % (47.00 to 53.00 %), behind"),
    ],
)
def test_baseline(accuracy: float, said: str) -> None:
    baseline = {**row(5, 20, 30, accuracy), "student": None}
    tried = verification({"verified": {**FACTS, "baseline": baseline}})
    assert tried is not None and tried.baseline is not None
    assert tried.comparison("resnet20") == f"resnet20, trained alike: {said}"
    assert len(tried.rows) == 5


def test_baseline_of_a_measure_without_intervals() -> None:
    rows = [row(0, 40, interval=None)]
    baseline = {**row(5, 40.5, interval=None), "student": None}
    tried = verification({"verified": {"trained": rows, "baseline": baseline}})
    assert tried is not None
    assert tried.comparison("ssd") == "ssd, trained alike: 40.50 %, ahead"


def test_a_baseline_that_failed() -> None:
    tried = verification({"verified": FACTS})
    assert tried is not None
    assert tried.comparison("resnet20") == "resnet20 could not be trained alike"


def test_one_student() -> None:
    tried = verification({"verified": {"trained": ROWS[3:4], "held_out": 9}})

    assert tried is not None
    assert tried.standing() == "after 1 epoch (95 % interval 32.00 to 38.00 %)"


def test_what_an_older_version_kept() -> None:
    """It kept the last accuracy of a training alone, without an interval."""
    old = [{k: v for k, v in each.items() if k not in ("accuracies", "interval")} for each in ROWS]

    tried = verification({"verified": {"trained": old, "held_out": 500}})

    assert tried is not None
    assert [each.by_epoch for each in tried.rows][:4] == [{3: 60}, {3: 58}, {3: 50}, {1: 35}]
    assert [each.interval for each in tried.rows] == [None] * 5
    assert tried.standing() == "after 3 epochs; of the others, 2 behind, 2 stopped early"


@pytest.mark.parametrize(
    "found",
    [
        {},
        {"verified": [1]},
        {"verified": {"trained": 3}},
        {"verified": {"trained": [4, {"student": 3, "accuracy": 1.0, "epochs": 1}]}},
        {"verified": {"trained": [{"student": {}, "accuracy": "high", "epochs": 1}]}},
        {"verified": {"trained": [{"student": {}, "accuracy": 1.0, "epochs": None}]}},
    ],
)
def test_none_or_damaged(found: dict[str, Any]) -> None:
    assert verification(found) is None


def test_damaged_parts_are_left_out() -> None:
    odd = row(0, 40.0, 50.0) | {"accuracies": ["x", 1], "interval": [1], "student": {"params": 3}}

    tried = verification({"verified": {"trained": [odd, 3], "tied": 4, "held_out": "x"}})

    assert tried is not None and tried.held_out == 0
    (one,) = tried.rows
    assert (one.by_epoch, one.interval, one.params) == ({2: 50.0}, None, {})
