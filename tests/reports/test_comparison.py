"""The comparison of a report, by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from diswot.reports.comparison import (
    ComparedNetwork,
    compared_students,
    compared_teacher,
    shared_measure,
)
from diswot.reports.networks import Sizes
from diswot.runs.records import Run, TrainingRecord
from diswot.tasks.registry import Measured

SIZES, PARAMS = Sizes(1, 2, 3, 1), {"blocks": 5}


def training(name: str, accuracy: object, **result: Any) -> TrainingRecord:
    return TrainingRecord(name, (), {"test_accuracy": accuracy, "epochs": 8, **result})


def run(folder: Path, *trainings: TrainingRecord) -> Run:
    return Run(folder, {}, None, trainings, (), ())


def test_a_way_to_train_is_a_line(tmp_path: Path) -> None:
    taught = {"student": PARAMS, "teacher": "zoo/resnet56"}
    found = compared_students(
        run(
            tmp_path,
            training("distilled", 70.0, **taught),
            training("other", 90.0, student={"blocks": 6}),
            training("seeds/1", 74.0, **taught),
            training("alone", 60.0, student=PARAMS, teacher=None),
            training("long", 80.0, **{**taught, "epochs": 1}),
            training("broken", "much", **taught),
            training("photos", 20.0, **taught, data="/a/photos"),
        ),
        PARAMS,
        SIZES,
    )
    name = "student, distilled from resnet56"
    assert found == [
        ComparedNetwork(name, SIZES, 72.0, "8 epochs, mean of 2 runs", "70.00 to 74.00",
                  ("distilled", "seeds/1")),
        ComparedNetwork("student, trained alone", SIZES, 60.0, "8 epochs", "", ("alone",)),
        ComparedNetwork(name, SIZES, 80.0, "1 epoch", "", ("long",)),
        ComparedNetwork(name, SIZES, 20.0, "8 epochs on photos", "", ("photos",)),
    ]  # fmt: skip
    assert compared_students(run(tmp_path), PARAMS, None) == [
        ComparedNetwork("student, not trained yet", None)
    ]


@pytest.mark.parametrize("inside", [True, False])
def test_a_teacher_and_what_is_told_beside_its_weights(inside: bool, tmp_path: Path) -> None:
    folder, place = tmp_path / "run", tmp_path / ("run/teachers/a" if inside else "b")
    place.mkdir(parents=True)
    (place / "trained.json").write_text(json.dumps({"result": {"test_accuracy": 91.5}}))
    config = {"teacher": "zoo/resnet56", "teacher_weights": str(place / "student.safetensors")}

    found = compared_teacher(run(folder, training("t", 3.0, student="zoo/resnet56")), config, SIZES)
    assert found == ComparedNetwork(
        "teacher: resnet56", SIZES, 91.5, folders=("teachers/a" if inside else str(place),)
    )


def test_a_teacher_of_the_run_itself(tmp_path: Path) -> None:
    """Trained alone, under the name that the search has; its weights may be anywhere."""
    config = {"teacher": "resnet56", "teacher_weights": str(tmp_path / "gone" / "weights.pt")}
    taught = training("taught", 70.0, student="resnet56", teacher="resnet110")
    found = compared_teacher(
        run(tmp_path, taught, training("alone", 60.0, student="resnet56")), config, None
    )
    assert found == ComparedNetwork("teacher: resnet56", None, 60.0, folders=("alone",))
    assert compared_teacher(run(tmp_path), config, None) == ComparedNetwork(
        "teacher: resnet56", None
    )


@pytest.mark.parametrize(
    ("results", "measure"),
    [
        (["test_miou", "test_miou"], "test mIoU"),
        (["test_accuracy"], "test accuracy"),
        (["test_accuracy", "test_agreement"], "test result"),
        ([], "test result"),
    ],
)
def test_the_measure_that_results_share(results: list[str], measure: str) -> None:
    assert shared_measure([None, *(Measured(name, 50.0) for name in results)]) == measure


def test_results_of_different_measures_are_not_averaged(tmp_path: Path) -> None:
    taught = {"student": PARAMS, "teacher": "t"}
    other = TrainingRecord("masks", (), {"test_miou": 40.0, "epochs": 8, **taught})
    found = compared_students(run(tmp_path, training("a", 70.0, **taught), other), PARAMS, None)
    assert [each.tested for each in found] == [
        Measured("test_accuracy", 70.0),
        Measured("test_miou", 40.0),
    ]
