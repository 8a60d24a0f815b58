"""A search from Python leaves a run folder that every reader opens as finished."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from commands import Run
from safetensors.torch import load_file
from torch import nn

import diswot
from diswot.nas.api import named_facts
from diswot.nas.result import SearchResult


def searched(folder: Path | diswot.StudySettings, **options: Any) -> SearchResult:
    """A search of S0 with digits of 8 x 8 pixels."""
    data = diswot.create_dataset("digits", img_size=8)
    space = options.pop("space", None) or diswot.create_space("s0", num_classes=10, img_size=8)
    budget = diswot.Budget(max_params="0.3M")
    teacher = diswot.create_teacher("resnet20", num_classes=10)
    return diswot.search(
        teacher, space, options.pop("data", data), n_trials=4, budget=budget, scoring="params",
        study=folder, **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("python") / "run"


@pytest.fixture(scope="module")
def found(folder: Path) -> SearchResult:
    return searched(folder)


def test_it_is_loaded_as_finished(folder: Path, found: SearchResult) -> None:
    run = diswot.load_run(folder)

    assert repr(run.search).startswith("SearchRecord(finished, ") and not run.notes
    assert run.search is not None and run.search.found == json.loads(json.dumps(
        {**found.as_dict(), "latency_setting": None, "like": None}
    ))  # fmt: skip
    known = {"space": "s0", "classes": 10, "image_size": 8, "data": "digits", "proxy": "params"}
    assert known.items() <= run.search.config.items()
    assert run.facts["versions"]["torch"] == version("torch")


def test_its_networks_are_built_again(folder: Path, found: SearchResult) -> None:
    run = diswot.load_run(folder)
    assert run.best is not None and run.best.params == found.best.params
    assert [each.trial for each in run.students] == [each.trial for each in found.top]
    assert sum(p.numel() for p in run.student().parameters()) == found.best.model_params
    with pytest.raises(diswot.UserError, match="does not record its teacher"):
        run.teacher()


@pytest.mark.usefixtures("imported_here")
def test_the_commands_read_it(folder: Path, found: SearchResult, run: Run) -> None:
    page = run(f"report {folder} --json").json["report"]
    assert "Space s0, data digits" in Path(page).read_text()
    table = run(f"compare {folder} {folder}").out
    assert table.count("digits") == 2 and f"{found.best.score:.5g}" in table

    files = run(f"export {folder} --format safetensors --json").json["files"]
    weights = load_file(next(f for f in files if f.endswith(".safetensors")))
    space = diswot.create_space("s0", num_classes=10, img_size=8)
    model = diswot.build_network(space, found.best.params)
    shapes = [sorted(v.shape for v in held.values()) for held in (weights, model.state_dict())]
    assert shapes[0] == shapes[1]


def test_a_search_without_a_scored_student_is_recorded_as_the_command_records_it(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diswot.nas.stopping.STALLED", 20)
    data = diswot.create_dataset("digits", img_size=8)
    space = diswot.create_space("s0", num_classes=10, img_size=8)
    with pytest.raises(diswot.UserError, match="no student fits the budget"):
        diswot.search(None, space, data, n_trials=4, budget=diswot.Budget(max_params=9),
                      scoring="params", study=tmp_path / "python")  # fmt: skip
    line = "search --data digits --image-size 8 --trials 4 --proxy params --max-params 9 --quiet"
    assert "no student fits the budget" in run(f"{line} --out {tmp_path / 'command'}").mistake()

    ours, other = (
        json.loads((tmp_path / name / "run.json").read_text()) for name in ("python", "command")
    )
    assert ours.keys() == other.keys() and ours["study"] == other["study"]
    unknown = {"teacher", "teacher_weights", "pretrained", "data_root", "repeats"}
    assert ours["config"] == {n: v for n, v in other["config"].items() if n not in unknown}
    kept = diswot.load_run(tmp_path / "python")
    assert repr(kept.search).startswith("SearchRecord(unfinished, ") and kept.facts["config"]
    assert diswot.compare_runs(tmp_path / "python").runs[0].space == "s0"


def test_a_search_in_a_database_is_recorded_in_a_folder(tmp_path: Path) -> None:
    place = diswot.StudySettings(f"sqlite:///{tmp_path}/trials.db", out=tmp_path / "run")
    found = searched(place)

    kept = diswot.load_run(tmp_path / "run")
    assert kept.search is not None and not kept.notes
    assert kept.search.scored()[0].params == found.best.params
    assert {file.name for file in (tmp_path / "run").iterdir()} == {"run.json", "found.json"}


def test_another_search_is_not_written_into_the_folder(tmp_path: Path) -> None:
    place = diswot.StudySettings(out=tmp_path)
    found = searched(place)
    assert searched(place).best == found.best
    kept = {path: path.read_bytes() for path in tmp_path.iterdir()}
    data = diswot.create_dataset("digits", img_size=8)
    space = diswot.create_space("s0", num_classes=10, img_size=8)

    with pytest.raises(diswot.UserError, match=r"the search in .* has seed = 0, not 1"):
        diswot.search(
            None, space, data, n_trials=4, study=place, budget=diswot.Budget(max_params="0.3M"),
            scoring=diswot.Scoring("params", seed=1), callbacks=[lambda progress: pytest.fail()],
        )  # fmt: skip
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == kept


@pytest.mark.parametrize("place", ["storage", "out"])
def test_a_rank_study_is_not_overwritten(place: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"config": {"table": "rows.csv"}}')
    with pytest.raises(diswot.UserError, match="holds a rank study; name another folder"):
        searched(replace(diswot.StudySettings(), **{place: tmp_path}))  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_resumed_search_writes_its_result_anew(tmp_path: Path) -> None:
    searched(tmp_path)
    before = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "found.json").unlink()
    found = searched(diswot.StudySettings(tmp_path, resume=True))

    assert json.loads((tmp_path / "found.json").read_text())["best"]["score"] == found.best.score
    assert json.loads((tmp_path / "run.json").read_text()) == before


def test_a_space_without_a_name_is_refused_by_export(tmp_path: Path) -> None:
    """Facts of the user name it."""
    own = diswot.create_space("s0", num_classes=10, img_size=8).build
    batch = diswot.create_dataset("digits", img_size=8).batch(8)
    searched(tmp_path / "a", space=own, data=batch)
    with pytest.raises(diswot.UserError, match="does not record its space, since its space is no"):
        diswot_student(tmp_path / "a")

    facts = {"space": "s0", "classes": 10, "image_size": 8, "teacher": "resnet20"}
    searched(diswot.StudySettings(tmp_path / "b", facts=facts), space=own, data=batch)
    assert isinstance(diswot_student(tmp_path / "b"), nn.Module)
    taught, plain = diswot.load_run(tmp_path / "b").teacher(), diswot.create_teacher("resnet20", 10)
    assert [p.shape for p in taught.parameters()] == [p.shape for p in plain.parameters()]


def diswot_student(folder: Path) -> nn.Module:
    from diswot.runs.rebuild import recorded_student

    return recorded_student(folder).network()


def test_facts_of_a_batch_and_of_an_unnamed_space() -> None:
    assert named_facts(lambda trial: nn.Linear(1, 1), None) == {}
    data = diswot.create_dataset("digits", img_size=8)
    assert named_facts(lambda trial: nn.Linear(1, 1), data)["image_size"] == 8
