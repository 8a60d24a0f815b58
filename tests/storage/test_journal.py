from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from typing import Any

import optuna
import pytest
import toyspaces
from optuna.samplers import RandomSampler
from optuna.storages import InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from diswot.nas.aging_evolution import AgingEvolutionSampler
from diswot.storage.journal import Journal, Storage, trials_from
from diswot.storage.run_files import JOURNAL
from diswot.storage.study import open_storage

LINE = b'{"op_code":0,"study_name":"a"}\n'

assert toyspaces  # sets Optuna's verbosity


def study(place: Path, name: str = "a", **options: Any) -> optuna.Study:
    options = {"sampler": RandomSampler(seed=0), **options}
    where = open_storage(place)
    return optuna.create_study(storage=where, study_name=name, load_if_exists=True, **options)


def run(opened: optuna.Study, trials: int) -> None:
    for _ in range(trials):
        trial = opened.ask()
        trial.suggest_int("a", 0, 9)
        opened.tell(trial, trial.number)


# Reading


def test_logs_are_read_on_from_where_reading_ended(tmp_path: Path) -> None:
    """As Optuna's own backend reads them; the reader may stop anywhere."""
    opened = study(tmp_path)
    run(opened, 5)
    ours, optunas = Journal(tmp_path / JOURNAL), JournalFileBackend(str(tmp_path / JOURNAL))
    begun = list(ours.read_logs(0))
    assert begun == list(optunas.read_logs(0)) and len(begun) == 1 + 5 * 3

    run(opened, 2)

    more = list(optunas.read_logs(16))
    assert list(islice(ours.read_logs(16), 4)) == more[:4]
    assert list(ours.read_logs(20)) == more[4:] and list(ours.read_logs(22)) == []
    for other in (20, 23):
        with pytest.raises(ValueError, match=f"the logs up to number {other} were not read"):
            list(ours.read_logs(other))
    assert list(ours.read_logs(0)) == begun + more


def test_line_is_read_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / JOURNAL
    journal = Journal(path)
    path.write_bytes(LINE + LINE[:9])
    assert len(list(journal.read_logs(0))) == 1

    with path.open("ab") as file:
        file.write(LINE[9:])

    assert list(journal.read_logs(1)) == [{"op_code": 0, "study_name": "a"}]
    assert list(journal.read_logs(2)) == []


def test_choice_that_changed_is_read_as_optuna_reads_it(tmp_path: Path) -> None:
    opened = study(tmp_path)
    run(opened, 2)
    with pytest.raises(ValueError, match="different distribution kind"):
        opened.ask().suggest_categorical("a", ["b"])
    opened.tell(2, state=TrialState.FAIL)

    again = study(tmp_path)

    assert again.trials == opened.trials and again.trials[2].params == {}
    run(again, 1)
    assert study(tmp_path).trials == again.trials


def test_the_disk_is_waited_for_once_a_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[int] = []
    opened = study(tmp_path)
    monkeypatch.setattr(os, "fsync", waits.append)

    run(opened, 3)

    assert len(waits) == 3


# Trials, without a walk over all


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of trials in each walk over the trials of a journal."""
    lengths: list[int] = []
    whole = JournalStorage.get_all_trials

    def counted(self: JournalStorage, *arguments: Any, **options: Any) -> Any:
        found = whole(self, *arguments, **options)
        lengths.append(len(found))
        return found

    monkeypatch.setattr(JournalStorage, "get_all_trials", counted)
    return lengths


def test_a_trial_does_not_walk_over_those_before(tmp_path: Path, walks: list[int]) -> None:
    opened = study(tmp_path, sampler=AgingEvolutionSampler(population=4))
    run(opened, 9)
    begun = len(walks)

    run(opened, 30)

    assert len(walks) == begun
    run(study(tmp_path, sampler=AgingEvolutionSampler(population=4)), 30)
    assert walks[begun:] == [39, 40]  # what waits, and what there was


def test_trials_that_wait_are_begun_in_their_order(tmp_path: Path) -> None:
    opened = study(tmp_path)
    run(opened, 3)
    for value in (7, 5):
        opened.enqueue_trial({"a": value})
    first = opened.ask()
    assert (first.number, first.suggest_int("a", 0, 9)) == (3, 7)
    opened.enqueue_trial({"a": 1})
    again = study(tmp_path)
    assert [again.ask().number for _ in range(3)] == [4, 5, 6]
    assert [opened.ask().number, again.ask().number] == [7, 8]
    other = study(tmp_path, name="b")
    other.enqueue_trial({"a": 2})
    assert other.ask().suggest_int("a", 0, 9) == 2 and opened.ask().number == 9


@pytest.mark.parametrize("where", ["journal", "memory", "sqlite"])
def test_trials_from_a_number_on(where: str, tmp_path: Path) -> None:
    places = {"journal": tmp_path, "sqlite": f"sqlite:///{tmp_path}/a.db", "memory": None}
    storage = open_storage(places[where]) or InMemoryStorage()
    opened = optuna.create_study(storage=storage, study_name="a")
    optuna.create_study(storage=storage, study_name="b").ask()
    run(opened, 4)
    opened.ask()

    for first in range(8):
        found = trials_from(storage, opened._study_id, first)
        assert [trial.number for trial in found] == list(range(first, 5))
        assert [t.state for t in found] == [t.state for t in opened.trials[first:]]
    assert found == [] and opened.trials[4].state == TrialState.RUNNING
    storage.remove_session()


def test_storage_is_optunas(tmp_path: Path) -> None:
    run(study(tmp_path), 3)
    storage = open_storage(tmp_path)

    assert isinstance(storage, Storage)
    assert len(storage.get_all_trials(0, states=(TrialState.COMPLETE,))) == 3
    assert storage.get_all_trials(0, states=[TrialState.WAITING]) == []
