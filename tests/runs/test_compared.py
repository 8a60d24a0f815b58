"""Several runs side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from run_folders import edited

import diswot
from diswot.errors import UserError
from diswot.runs.compared import Condition, compare_runs

BEST = {"blocks1": 7, "blocks2": 3, "blocks3": 3}


def trained(place: Path, accuracy: float, **facts: Any) -> None:
    """Write the result of a training of the best student, by default distilled for 2 epochs."""
    result = {"student": BEST, "teacher": "resnet20", "data": "digits", "epochs": 2}
    place.mkdir(parents=True)
    result |= {"test_accuracy": accuracy, "model_params": 1000, "macs": 5000, "seconds": 3.5}
    (place / "trained.json").write_text(json.dumps({"result": {**result, **facts}}))


def with_trainings(folder: Path) -> Path:
    """Add trainings of the best student, and of another one, to the folder of a search."""
    edited(folder / "found.json", lambda found: found["best"].update(params=BEST, latency=0.0021))
    trained(folder / "distilled", 60.0)
    trained(folder / "again", 63.0)
    trained(folder / "longer", 90.0, epochs=40)
    trained(folder / "alone", 50.0, teacher=None)
    trained(folder / "other", 99.0, student={**BEST, "blocks1": 1})
    return folder


def test_a_search_with_its_trainings(copy: Path) -> None:
    (run,) = compare_runs(with_trainings(copy)).runs

    assert (run.teacher, run.data, run.space, run.score) == ("resnet20", "digits", "s0", "params")
    assert run.budget == "300,000 params" and run.scored == 5 and run.student == BEST
    assert run.model_params == run.best_score == 291162 and run.latency == 0.0021
    tested = {(each.way, each.epochs): (each.accuracy, each.trainings) for each in run.accuracies}
    assert tested == {
        ("alone", 2): (50.0, 1),
        ("distilled", 2): (61.5, 2),
        ("distilled", 40): (90.0, 1),
    }


def test_folders_of_one_name_are_other_data(tmp_path: Path) -> None:
    for name, accuracy in (("flowers", 12.0), ("birds", 34.0)):
        trained(tmp_path / name, accuracy, data=f"/{name}/images")
    found = compare_runs(tmp_path / "flowers", tmp_path / "birds")

    named = [f"2 epochs on /{name}/images" for name in ("birds", "flowers")]
    assert [str(each) for each in found.conditions()] == ["2 epochs on images"] * 2
    assert list(found.titles().values()) == named
    table = found.table()
    assert [table[f"test accuracy %, distilled, {name}"] for name in named] == [
        ["-", "34.00"],
        ["12.00", "-"],
    ]
    alone = compare_runs(tmp_path / "birds")
    assert list(alone.titles().values()) == ["2 epochs on images"]


def test_accuracies_of_other_epochs_or_images_share_no_row_and_no_axis(
    copy: Path, tmp_path: Path
) -> None:
    trained(tmp_path / "noise", 12.0, data="noise")
    found = compare_runs(with_trainings(copy), tmp_path / "noise")

    places = [("digits", 2), ("noise", 2), ("digits", 40)]
    conditions = [Condition(data, epochs, "test accuracy") for data, epochs in places]
    assert found.conditions() == conditions
    assert {title: cells for title, cells in found.table().items() if "test accuracy" in title} == {
        "test accuracy %, distilled, 2 epochs on digits": ["61.50 (mean of 2)", "-"],
        "test accuracy %, alone, 2 epochs on digits": ["50.00", "-"],
        "test accuracy %, distilled, 40 epochs on digits": ["90.00", "-"],
        "test accuracy %, distilled, 2 epochs on noise": ["-", "12.00"],
    }
    traces = found.plot().data
    assert {(trace.xaxis, tuple(trace.y)) for trace in traces} == {
        ("x", (61.5,)),
        ("x", (50.0,)),
        ("x3", (90.0,)),
        ("x2", (12.0,)),
    }
    assert len({trace.yaxis for trace in traces}) == 3


def test_an_unfinished_search_has_its_best_student_so_far(copy: Path) -> None:
    (copy / "found.json").unlink()
    (run,) = compare_runs(copy).runs

    assert run.student == BEST and run.model_params == 291162 and run.scored == 5


def test_data_frame_and_html(copy: Path, tmp_path: Path) -> None:
    trained(tmp_path / "<b>", 12.0)
    found = diswot.compare_runs(with_trainings(copy), tmp_path / "<b>")
    frame = found.to_dataframe()

    assert list(frame.index) == [str(copy), str(tmp_path / "<b>")]
    assert list(frame["distilled 2 epochs on digits"]) == [61.5, 12.0]
    assert "<b>" not in found._repr_html_() and "&lt;b&gt;" in found._repr_html_()
    assert "\n" not in repr(found)


def test_what_cannot_be_compared(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        compare_runs(copy, tmp_path / "gone")
    with pytest.raises(UserError, match="no student of these runs was trained"):
        compare_runs(copy).plot()
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "history.jsonl").write_text('{"epoch": 1, "loss": 2.0}\n')
    with pytest.raises(UserError, match="begun holds no search and no finished training"):
        compare_runs(tmp_path / "begun")


def test_segmentation_has_a_row_of_its_own(copy: Path) -> None:
    trained(with_trainings(copy) / "masks", 0.0, data="masks", test_accuracy=None, test_miou=41.5)
    found = compare_runs(copy)
    assert found.table()["test mIoU %, distilled, 2 epochs on masks"] == ["41.50"]
    assert Condition("masks", 2, "test mIoU") in found.conditions()
