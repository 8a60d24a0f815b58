"""Where a search keeps its trials: a journal in the run folder, or any Optuna storage."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.storages.journal._file import BaseJournalFileLock, get_lock_file
from optuna.storages.journal._storage import JournalOperation

from diswot.errors import UserError
from diswot.facts import masked

if sys.platform != "win32":
    import fcntl

JOURNAL = "study.journal"
LOCK = ".search.lock"


def open_storage(where: str | Path | None) -> BaseStorage | None:
    """Open a storage by its URL, or the journal in a folder; None is memory.

    Raises:
        UserError: The place cannot be opened or read.
    """
    if where is None:
        return None
    if "://" in str(where):
        return _database(str(where))
    path = Path(where) / JOURNAL
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = JournalFileOpenLock(str(path)) if sys.platform == "win32" else FileLock(path)
        mend(path, lock)
        return JournalStorage(Journal(str(path), lock))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} cannot be used: {error}") from error


class Journal(JournalFileBackend):
    """Optuna's journal, made to wait for the disk once a trial, at its end, not at every write.

    A process that is killed loses nothing; a machine that stops, no trial that ended.
    """

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write a line a log."""
        lines = [json.dumps(log, separators=(",", ":")) + "\n" for log in logs]
        with get_lock_file(self._lock), open(self._file_path, "ab") as file:
            file.write("".join(lines).encode())
            file.flush()
            if any(log["op_code"] == JournalOperation.SET_TRIAL_STATE_VALUES for log in logs):
                os.fsync(file.fileno())


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


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other searches off a run folder; the system lets them in when this process dies.

    Raises:
        UserError: A search is under way in it.
    """
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as error:
        raise UserError(f"{folder} cannot be used: {error.strerror}") from error
    with file:
        try:
            if sys.platform != "win32":
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"a search is under way in {folder}; wait, or name another") from error
        except OSError as error:
            raise UserError(f"{path} cannot be locked: {error.strerror}") from error
        yield


def mend(path: Path, lock: BaseJournalFileLock) -> None:
    """Cut off a last line that a killed process left half written.

    Raises:
        ValueError: Another line was not written by a search.
    """
    if not path.is_file():
        return
    with get_lock_file(lock):
        text = path.read_bytes()
        whole = text.rfind(b"\n") + 1
        for number, line in enumerate(text[:whole].split(b"\n")[:-1], 1):
            if not (line.startswith(b'{"op_code":') and line.endswith(b"}")):
                raise ValueError(f"line {number} was not written by a search")
        if whole < len(text):
            os.truncate(path, whole)


def _database(url: str) -> BaseStorage:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import SQLAlchemyError

    told = url
    try:
        told = masked(make_url(url).render_as_string(hide_password=True))
        return optuna.storages.get_storage(_with_driver(url))
    except (SQLAlchemyError, ImportError, ValueError) as error:
        raise UserError(f"cannot open {told}: {str(error).splitlines()[0]}") from error


def _with_driver(url: str) -> str:
    """The same, with psycopg as PostgreSQL's driver where no other is named and it is there."""
    name, _, rest = url.partition("://")
    if name in ("postgres", "postgresql") and find_spec("psycopg") is not None:
        return f"postgresql+psycopg://{rest}"
    return url


@contextmanager
def opened(where: str | Path | None) -> Iterator[BaseStorage | None]:
    """As `open_storage`; connections to a database are closed on the way out."""
    storage = open_storage(where)
    try:
        yield storage
    finally:
        backend = getattr(storage, "_backend", storage)
        if storage is not None:
            storage.remove_session()
        if isinstance(backend, optuna.storages.RDBStorage):
            backend.engine.dispose()


def open_study(
    storage: BaseStorage | None,
    name: str,
    sampler: optuna.samplers.BaseSampler,
    *,
    resume: bool,
    directions: Sequence[Literal["maximize", "minimize"]] = ("maximize",),
) -> optuna.Study:
    """Create a study, or go on with it.

    Args:
        storage: Where it is kept.
        name: Its own.
        sampler: Proposes architectures.
        resume: Whether it may be there already.
        directions: `maximize` or `minimize`, an objective each.

    Raises:
        UserError: The study is there and is not to be resumed.
    """
    try:
        return optuna.create_study(
            storage=storage,
            study_name=name,
            sampler=sampler,
            directions=list(directions),
            load_if_exists=resume,
        )
    except optuna.exceptions.DuplicatedStudyError as error:
        raise UserError("a search is here already; resume it, or choose another place") from error
