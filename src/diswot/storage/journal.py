"""Optuna's journal of a study in a run folder, for long studies and killed processes."""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import FrozenTrial, TrialState

from diswot.utils import jsonl

WAITING = (TrialState.WAITING,)


def trials_from(storage: BaseStorage, study_id: int, first: int) -> list[FrozenTrial]:
    """Return the trials of a study from a number on, uncopied: do not change them.

    A storage in memory, such as Optuna's journal, finds them without a walk over earlier trials. A
    database returns all trials by one query, since each single trial costs a query.
    """
    if first == 0 or not isinstance(storage, InMemoryStorage | JournalStorage):
        return storage.get_all_trials(study_id, deepcopy=False)[first:]
    found: list[FrozenTrial] = []
    with suppress(KeyError):  # after the last trial
        for number in count(first):
            found.append(trial_at(storage, study_id, number))
    return found


def trial_at(storage: BaseStorage, study_id: int, number: int) -> FrozenTrial:
    """Return the trial of a number, uncopied: do not change it.

    Raises:
        KeyError: The study has no such trial.
    """
    return storage.get_trial(storage.get_trial_id_from_study_id_trial_number(study_id, number))


class Storage(JournalStorage):
    """Optuna's journal storage with a quick search for waiting trials.

    `Study.ask` searches all trials for waiting ones each time. This class searches only from the
    first trial that was still waiting the last time, since a started trial never waits again.
    """

    def __init__(self, log_storage: BaseJournalBackend) -> None:
        super().__init__(log_storage)
        self._started: dict[int, int] = {}

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """Return the trials of a study in the order of their numbers."""
        if states != WAITING:
            return super().get_all_trials(study_id, deepcopy, states)
        first = self._started.get(study_id, 0)
        recent = trials_from(self, study_id, first)
        waiting = [trial for trial in recent if trial.state == TrialState.WAITING]
        self._started[study_id] = waiting[0].number if waiting else first + len(recent)
        return waiting


class NotWritten(OSError):
    """Error of a journal that cannot be written, such as on a full disk."""


class Journal(BaseJournalBackend):
    """Optuna's log of a study in one file.

    It waits for the disk once a trial, at the end, not at every write as Optuna's own does. A
    killed process loses nothing; a machine that stops loses no trial that ended.
    """

    def __init__(self, path: Path) -> None:
        path.touch()
        self.path = path
        self._next = 0, 0  # number of the next log, and position of the line that holds it

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append one line a log.

        Raises:
            NotWritten: The file cannot be written.
        """
        try:
            jsonl.append(self.path, logs, sync=any("datetime_complete" in log for log in logs))
        except OSError as error:
            raise NotWritten(*error.args) from error

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Yield the logs from a number on: 0, or the number at which the last reading ended.

        Raises:
            ValueError: A line was not written by a search, or the number is another.
        """
        number, position = self._next if log_number_from else (0, 0)
        if log_number_from != number:
            raise ValueError(f"the logs up to number {log_number_from} were not read")
        for log, position in jsonl.read_from(self.path, position):  # noqa: B020
            number += 1
            if not isinstance(log, dict) or "op_code" not in log:
                raise ValueError(f"line {number} was not written by a search")
            self._next = number, position
            yield log
