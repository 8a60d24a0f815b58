"""What is read of the trials of a search."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import optuna
import pytest
from commands import Run as Cli
from run_folders import edited, search_of, searched

from diswot.errors import UserError
from diswot.runs import trials
from diswot.runs.read import load_run


def test_a_search_in_a_database(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/trials.db"
    more = "--sampler random --trials 5 --proxy params --study mine"
    folder = searched(tmp_path / "run", f"{more} --storage {url}")
    run = load_run(folder)
    assert len(search_of(run).scored()) == 4 and not run.notes
    with pytest.raises(UserError, match="no study 'other' there; known: mine"):
        load_run(folder, url, "other")
    (tmp_path / "trials.db").unlink()
    assert "not in" in load_run(folder).notes[0]
    assert not (tmp_path / "trials.db").exists()


OPTIONS = "--sampler random --trials 4 --proxy params"


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a search, not to be changed, and the database of its trials."""
    root = tmp_path_factory.mktemp("stored")
    url = f"sqlite:///{root}/trials.db"
    return searched(root / "run", f"{OPTIONS} --storage {url}"), url


@pytest.mark.parametrize(
    ("more", "difference"),
    [
        ("--seed 1", "it has seed = 1, not 0"),
        ("--data noise --classes 10", "it has data = 'noise', not 'digits'"),
        ("--max-params 0.2M", "it has max_params = 200000.0, not 300000.0"),
        ("--objectives score,macs", "it has objectives = ['score', 'macs'], not ['score']"),
        ("--sampler tpe", "it has sampler = 'tpe', not 'random'"),
    ],
)
def test_a_study_of_another_search_is_refused(
    more: str, difference: str, run: Cli, stored: tuple[Path, str], tmp_path: Path
) -> None:
    (folder, url), other = stored, tmp_path.name
    searched(tmp_path / "other", f"{OPTIONS} --storage {url} --study {other} {more}")

    ran = run(f"report {folder} --no-networks --storage {url} --study {other}")
    assert ran.mistake().startswith(f"the study '{other}' is not of the search in {folder}: ")
    assert difference in ran.err and not (folder / "report.html").exists()


def test_the_study_of_a_search_has_its_student(
    run: Cli, stored: tuple[Path, str], tmp_path: Path
) -> None:
    url, folder = stored[1], Path(shutil.copytree(stored[0], tmp_path / "run"))
    assert run(f"report {folder} --no-networks --storage {url}").status == 0
    edited(folder / "found.json", lambda found: found["best"].update(trial=0, params={"a": 1}))
    message = run(f"report {folder} --no-networks --storage {url}").mistake()
    assert message.endswith("its trial 0 is not the student found there")
    (folder / "found.json").unlink()
    unfinished = run(f"report {folder} --no-networks --storage {url}")
    assert unfinished.status == 0, unfinished.err


def test_a_study_of_no_search_is_refused(copy: Path, run: Cli, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/trials.db"
    optuna.create_study(storage=url, study_name="mine")
    message = run(f"report {copy} --storage {url} --study mine").mistake()
    assert message.startswith(
        f"the study 'mine' is not of the search in {copy}: it has batch_size = None"
    )


@pytest.mark.parametrize("option", ["--storage sqlite:///none.db", "--study mine"])
def test_a_training_has_no_study(option: str, run: Cli, tmp_path: Path) -> None:
    (tmp_path / "trained.json").write_text('{"result": {"losses": {}}}')
    message = run(f"report {tmp_path} {option}").mistake()
    assert message == f"{tmp_path} holds a training; --storage and --study go with a search"


def test_a_study_that_is_named_must_be_there(copy: Path, run: Cli) -> None:
    assert run(f"report {copy} --study mine").mistake() == "no study 'mine' there; known: diswot"


@pytest.mark.parametrize("address", ["postgresql://a:***@b/c", "postgresql://b/c?password=***"])
def test_no_password_is_kept_or_asked_with(address: str, copy: Path) -> None:
    edited(copy / "run.json", lambda run: run.update(study={"storage": address}))
    assert "--storage" in load_run(copy).notes[0]


def test_a_data_base_out_of_reach_is_named_without_its_password(copy: Path) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(UserError, match=r"cannot open postgresql://a:\*\*\*@127.0.0.1:1/c: "):
        load_run(copy, "postgresql://a:secret@127.0.0.1:1/c")


def test_standard_error_by_hand(tmp_path: Path) -> None:
    more = "--sampler random --trials 5 --proxy relation --repeats 3"
    run = load_run(searched(tmp_path / "run", more))
    best, scores = search_of(run).scored()[0], None
    study = search_of(run).study
    assert study is not None
    scores = study.trials[best.trial].user_attrs["end"]["scores"]["relation"]
    mean = sum(scores) / 3
    by_hand = math.sqrt(sum((s - mean) ** 2 for s in scores) / 2 / 3)
    assert best.standard_error == pytest.approx(by_hand) and by_hand > 0


def test_a_journal_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "study.journal").write_text("not a journal\nat all\n")
    assert "cannot be read" in read_notes(tmp_path)[0]


def read_notes(folder: Path) -> tuple[str, ...]:
    (folder / "found.json").write_text('{"best": {}, "top": []}')
    return load_run(folder).notes


def test_several_studies_and_no_name(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/trials.db"
    for name in ("one", "two"):
        optuna.create_study(storage=url, study_name=name)
    with pytest.raises(UserError, match="known: one, two"):
        load_run(tmp_path, url)


def test_the_time_of_a_search(copy: Path) -> None:
    """The trials decide; without them, the result."""
    found = json.loads((copy / "found.json").read_text())
    held = trials.load_study(copy / "study.journal", None).trials
    starts = [t.datetime_start for t in held if t.datetime_start]
    ends = [t.datetime_complete for t in held if t.datetime_complete]
    seconds = search_of(load_run(copy)).seconds
    assert seconds == found["seconds"]
    assert 0 < seconds <= (max(ends) - min(starts)).total_seconds()
    (copy / "study.journal").unlink()
    for recorded, known in ((60.0, 60.0), ("long", None)):
        (copy / "found.json").write_text(json.dumps({**found, "seconds": recorded}))
        assert search_of(load_run(copy)).seconds == known
