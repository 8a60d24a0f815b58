"""What is read of run folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from run_folders import search_of

import diswot
from diswot.data.registry import create_dataset
from diswot.errors import UserError
from diswot.models.registry import create_teacher
from diswot.reports import charts
from diswot.runs.read import load_run
from diswot.spaces.registry import create_space


def test_a_search_is_what_the_study_holds(folder: Path) -> None:
    run = load_run(folder)
    found = json.loads((folder / "found.json").read_text())
    best = search_of(run).scored()[0]

    assert best.params == found["best"]["params"] and best.trial == found["best"]["trial"]
    assert best.score == best.model_params == found["best"]["model_params"]
    ends = [c.outcome for c in search_of(run).trials]
    assert [ends.count(n) for n in ("scored", "reused", "rejected")] == [
        found[name] for name in ("scored", "reused", "rejected")
    ]
    assert not run.notes and not run.trainings and not run.studies
    assert (
        search_of(run).config["seed"] == 0 and search_of(run).config["budget"]["max_params"] == 3e5
    )
    rejected = next(c for c in search_of(run).trials if c.outcome == "rejected")
    assert "params > 300,000" in rejected.note and rejected.score is None


def test_reading_leaves_the_folder_as_it_is(folder: Path) -> None:
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    load_run(folder)
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    assert after == before


def test_an_unfinished_search(copy: Path) -> None:
    (copy / "found.json").unlink()
    journal = copy / "study.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[: len(lines) // 2]) + b'{"op_code":')
    run = load_run(copy)
    assert search_of(run).found == {} and search_of(run).scored()


def test_trials_out_of_reach_leave_the_best_of_the_result(copy: Path) -> None:
    (copy / "study.journal").unlink()
    run = load_run(copy)
    found = json.loads((copy / "found.json").read_text())
    assert [c.trial for c in search_of(run).trials] == [row["trial"] for row in found["top"]]
    assert search_of(run).trials[0].macs == found["best"]["macs"]
    assert "not in" in run.notes[0]


def test_a_damaged_result_is_noted(copy: Path) -> None:
    (copy / "found.json").write_text("{")
    run = load_run(copy)
    assert search_of(run).scored() and "found.json" in run.notes[0]


def test_trainings_and_damaged_histories(tmp_path: Path) -> None:
    for name, text in (("a", '{"epoch": 1, "loss": 2.5, "x": NaN}\n'), ("b/c", "{broken\n")):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "history.jsonl").write_text(text)
    run = load_run(tmp_path)
    (training,) = run.trainings
    assert training.name == "a" and training.history == ({"epoch": 1, "loss": 2.5},)
    assert len(run.notes) == 1 and "c/history.jsonl" in run.notes[0]


def test_the_public_function_opens_any_folder(folder: Path, tmp_path: Path) -> None:
    """A search's, a training's, and one that holds both."""
    shutil.copytree(folder, tmp_path / "all" / "search")
    training = tmp_path / "all" / "search" / "distilled"
    training.mkdir()
    (training / "history.jsonl").write_text('{"epoch": 1, "test_accuracy": 50.0}\n')
    (training / "trained.json").write_text('{"result": {"test_accuracy": 50.0}}')
    (training / "student.safetensors").touch()

    assert diswot.load_run is load_run
    assert search_of(diswot.load_run(str(folder))).trials == search_of(load_run(folder)).trials
    alone = diswot.load_run(training)
    assert alone.search is None and [t.accuracy for t in alone.trainings] == [50.0]
    both = diswot.load_run(tmp_path / "all" / "search")
    assert both.search is not None and both.trainings[0].name == "distilled"
    assert both.trainings[0].weights == training / "student.safetensors"
    assert repr(both).count("\n") == 0 and len(repr(both)) < 200 + len(str(tmp_path))


@pytest.mark.parametrize("name", ["empty", "missing"])
def test_nothing_of_diswot(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "run.json").write_text('{"command": ["other"]}')
    with pytest.raises(UserError, match=r"holds no search|no such folder"):
        load_run(tmp_path / name)


def test_costs_of_a_search_with_two_objectives(tmp_path: Path) -> None:
    teacher, space = create_teacher("resnet20", 10), create_space("s0", 10, 8)
    found = diswot.search(
        teacher,
        space,
        create_dataset("digits", img_size=8).batch(10),
        n_trials=6,
        objectives=("score", "memory"),
        sampler="random",
        scoring="params",
        study=tmp_path,
    )
    run = load_run(tmp_path)
    assert search_of(run).costs() == ["params", "memory"]
    front = charts.pareto_candidates(search_of(run).scored(), "memory")
    assert {c.trial for c in front} == {student.trial for student in found.front}
    best = search_of(run).scored()[0]
    assert best.extra == {"memory": found.best.memory}
