"""The journal of a run folder: Optuna's, made for long studies, full disks and killed processes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Container, Generator, Iterable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock, get_lock_file
from optuna.storages.journal._storage import JournalOperation
from optuna.trial import FrozenTrial, TrialState

from diswot.storage.replay import Log, Unusual, merged

if sys.platform != "win32":
    import fcntl

WAITING = (TrialState.WAITING,)


def trials_from(storage: BaseStorage, study_id: int, first: int) -> list[FrozenTrial]:
    """The trials of a study from a number on, which must not be changed.

    Without a walk over those before, where a storage holds them in memory, as Optuna's journal
    does. A database is asked for all at once: one by one they cost a query each.
    """
    if first == 0 or not isinstance(storage, InMemoryStorage | JournalStorage):
        return storage.get_all_trials(study_id, deepcopy=False)[first:]
    found: list[FrozenTrial] = []
    with suppress(KeyError):  # there is no such number yet
        for number in count(first):
            found.append(trial_at(storage, study_id, number))
    return found


def trial_at(storage: BaseStorage, study_id: int, number: int) -> FrozenTrial:
    """The trial of a number, which must not be changed.

    Raises:
        KeyError: There is none.
    """
    return storage.get_trial(storage.get_trial_id_from_study_id_trial_number(study_id, number))


class Storage(JournalStorage):
    """Optuna's, which finds the trials that wait to be begun without a walk over all others.

    Optuna looks for them whenever a trial is asked for. A trial that was begun never waits again.
    """

    def __init__(self, log_storage: JournalFileBackend) -> None:
        super().__init__(log_storage)
        self._begun: dict[int, int] = {}

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """Those of a study, in the order of their numbers."""
        if states != WAITING:
            return super().get_all_trials(study_id, deepcopy, states)
        first = self._begun.get(study_id, 0)
        recent = trials_from(self, study_id, first)
        waiting = [trial for trial in recent if trial.state == TrialState.WAITING]
        self._begun[study_id] = waiting[0].number if waiting else first + len(recent)
        return waiting


class Journal(JournalFileBackend):
    """Optuna's file, made to wait for the disk once a trial, at its end, not at every write.

    A process that is killed loses nothing; a machine that stops, no trial that ended. Of the places
    of lines only that of the next is kept.
    """

    def __init__(self, path: str, lock: BaseJournalFileLock) -> None:
        super().__init__(path, lock)
        self._next = 0, 0  # number of the log to be read next, and place of its line

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write a line a log."""
        lines = [json.dumps(log, separators=(",", ":")) + "\n" for log in logs]
        with get_lock_file(self._lock), open(self._file_path, "ab") as file:
            file.write("".join(lines).encode())
            file.flush()
            if any(log["op_code"] == JournalOperation.SET_TRIAL_STATE_VALUES for log in logs):
                os.fsync(file.fileno())

    def read_logs(self, log_number_from: int) -> Generator[Log, None, None]:
        """Read from the beginning, or on from where the last reading ended, whole lines alone.

        From the beginning there is one log a trial, in place of many; numbers are of logs.

        Raises:
            ValueError: A line was not written by a search, or the number is of neither place.
        """
        if log_number_from == 0:
            yield from self._beginning()
            return
        number, place = self._next
        if log_number_from != number:
            raise ValueError(f"nothing was read up to log {log_number_from}")
        for log, end in self._lines(place):
            number += 1
            self._next = number, end
            yield log

    def _beginning(self) -> list[Log]:
        try:
            logs, place = self._to_the_end(merged)
        except Unusual:
            logs, place = self._to_the_end(list)
        self._next = len(logs), place
        return logs

    def _to_the_end(self, gather: Callable[[Iterable[Log]], list[Log]]) -> tuple[list[Log], int]:
        """What is gathered of all lines, and the place of the next."""
        end = 0

        def passing() -> Iterator[Log]:
            nonlocal end
            for log, end in self._lines(0):  # noqa: B007
                yield log

        return gather(passing()), end

    def _lines(self, place: int) -> Iterator[tuple[Log, int]]:
        """Each whole line from a place on, and the place after it."""
        with open(self._file_path, "rb") as file:
            file.seek(place)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                place += len(line)
                yield json.loads(line), place


class FileLock(BaseJournalFileLock):
    """Holds a file, made if need be, for one process; the system lets go of it when that dies.

    Optuna's own locks are files, which a killed process leaves behind: in a folder with a
    relative path the next process would wait for ever, in others for half a minute.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def acquire(self) -> bool:
        """Wait until no other process holds the file."""
        self._file = self._path.open("ab")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        return True

    def release(self) -> None:
        """Let go."""
        self._file.close()


def mend(path: Path, lock: BaseJournalFileLock) -> None:
    """Cut off a last line that a killed process left half written.

    Raises:
        ValueError: Another line was not written by a search.
    """
    if not path.is_file():
        return
    whole = 0
    with get_lock_file(lock), path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                break
            if not (line.startswith(b'{"op_code":') and line.endswith(b"}\n")):
                raise ValueError(f"line {number} was not written by a search")
            whole += len(line)
        if whole < path.stat().st_size:
            os.truncate(path, whole)
