"""Where a search keeps its trials: a journal in the run folder, or any Optuna storage."""

from __future__ import annotations

import os
from pathlib import Path

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend

from diswot.errors import UserError

JOURNAL = "study.journal"


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
        mend(path)
        return JournalStorage(JournalFileBackend(str(path)))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} cannot be used: {error}") from error


def mend(path: Path) -> None:
    """Cut off a last line that a killed process left half written."""
    if not path.is_file():
        return
    text = path.read_bytes()
    whole = text.rfind(b"\n") + 1
    if whole < len(text):
        os.truncate(path, whole)


def _database(url: str) -> BaseStorage:
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return optuna.storages.get_storage(url)
    except (SQLAlchemyError, ImportError, ValueError) as error:
        raise UserError(f"cannot open {url}: {str(error).splitlines()[0]}") from error


def open_study(
    storage: BaseStorage | None, name: str, sampler: optuna.samplers.BaseSampler, *, resume: bool
) -> optuna.Study:
    """Create a study that maximises, or go on with it.

    Raises:
        UserError: The study is there and is not to be resumed.
    """
    try:
        return optuna.create_study(
            storage=storage,
            study_name=name,
            sampler=sampler,
            direction="maximize",
            load_if_exists=resume,
        )
    except optuna.exceptions.DuplicatedStudyError as error:
        raise UserError("a search is here already; resume it, or choose another place") from error
