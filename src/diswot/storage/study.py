"""Storage of the trials of a search: a journal in the run folder, or any Optuna storage."""

from __future__ import annotations

import re
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NoReturn

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage

from diswot.errors import UserError, first_line
from diswot.storage.compat import close
from diswot.storage.journal import Journal, Storage
from diswot.storage.run_files import JOURNAL
from diswot.utils.environment import without_passwords

if sys.platform != "win32":
    import fcntl

LOCK = ".search.lock"
TRIES, PAUSE = 20, 0.2  # retries while another process creates the tables; seconds between
_COLUMNS = {  # some of Optuna's, by table
    "studies": {"study_id", "study_name"},
    "trials": {"trial_id", "study_id"},
}
_VERSIONS, _OPTUNAS = "alembic_version", re.compile(r"v\d+\.\d+\.\d+")  # such as v3.2.0.a
_MADE_BY_ANOTHER = ("already exists", "duplicate key", "UNIQUE constraint", "Duplicate entry")


def open_storage(where: str | Path | None) -> BaseStorage | None:
    """Open the storage of a URL, or the journal of a folder; None is the memory of this process.

    Raises:
        UserError: The storage cannot be opened or read.
    """
    if where is None:
        return None
    if "://" in str(where):
        return _database(str(where))
    path = Path(where) / JOURNAL
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return Storage(Journal(path))
    except Exception as error:  # a damaged journal makes Optuna raise anything
        raise UserError(f"{path} cannot be used: {first_line(error)}") from error


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Lock a run folder against other searches; the lock ends with this process.

    Raises:
        UserError: Another search holds the lock.
    """
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{folder} cannot be used: it is a file, or in one") from error
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


def _database(url: str) -> BaseStorage:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import SQLAlchemyError

    shown = url
    try:
        shown = without_passwords(make_url(url).render_as_string(hide_password=True))
        _check_tables(_with_driver(url), shown)
        return _with_tables(_with_driver(url))
    except RuntimeError as error:  # the tables are of another version of Optuna
        newer = "pip install -U optuna" in str(error)
        upgrade = f"copy the database, then: optuna storage upgrade --storage {shown}"
        raise UserError(
            f"cannot open {shown}: its tables are of another version of Optuna than "
            f"{optuna.__version__}; {'pip install -U optuna' if newer else upgrade}"
        ) from error
    except (SQLAlchemyError, StorageInternalError, ImportError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        reason = first_line(error)
        if isinstance(error, ImportError) and _is_postgres(url) and find_spec("psycopg") is None:
            reason = "it needs psycopg: pip install 'diswot[postgres]'"
        raise UserError(f"cannot open {shown}: {reason}") from error


def _check_tables(url: str, shown: str) -> None:
    """Refuse a database with tables of Optuna's names that another program made.

    Nothing is written before.
    """
    from sqlalchemy import create_engine, inspect, text

    engine = create_engine(url)
    try:
        tables = inspect(engine)
        for name, columns in _COLUMNS.items():
            if tables.has_table(name):
                found = {column["name"] for column in tables.get_columns(name)}
                if not found >= columns:
                    _refuse(shown, name)
        if tables.has_table(_VERSIONS):
            with engine.connect() as connection:
                rows = connection.execute(text(f"SELECT version_num FROM {_VERSIONS}")).all()
            if not all(_OPTUNAS.match(version) for (version,) in rows):
                _refuse(shown, _VERSIONS)
    finally:
        engine.dispose()


def _refuse(shown: str, table: str) -> NoReturn:
    raise UserError(f"{shown} has a table {table} that is not Optuna's; name another database")


def _with_tables(url: str) -> BaseStorage:
    """Open a database, with retries while other processes create the same tables."""
    from sqlalchemy.exc import DatabaseError

    for _ in range(TRIES):
        try:
            return optuna.storages.get_storage(url)
        except DatabaseError as error:
            if not any(said in str(error) for said in _MADE_BY_ANOTHER):
                raise
            time.sleep(PAUSE)
    return optuna.storages.get_storage(url)


def _with_driver(url: str) -> str:
    """Name psycopg as the driver of a PostgreSQL URL without a driver, if it is installed."""
    if not _is_postgres(url):
        return url
    driver = "+psycopg" if find_spec("psycopg") is not None else ""
    return f"postgresql{driver}://{url.partition('://')[2]}"


def _is_postgres(url: str) -> bool:
    """Say whether a URL is of PostgreSQL without a driver."""
    return url.partition("://")[0] in ("postgres", "postgresql")


@contextmanager
def opened(where: str | Path | None) -> Iterator[BaseStorage | None]:
    """Open a storage as `open_storage` does, and close its connections at the end."""
    storage = open_storage(where)
    try:
        yield storage
    finally:
        if storage is not None:
            close(storage)


@contextmanager
def _silent() -> Iterator[None]:
    """Keep Optuna from printing that a study was made; its verbosity is the user's afterwards."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(before, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def name_metrics(study: optuna.Study, names: Sequence[str]) -> None:
    """Name the values of a study, as Optuna's dashboard shows them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study.set_metric_names(list(names))


def open_study(
    storage: BaseStorage | None,
    name: str,
    sampler: optuna.samplers.BaseSampler,
    *,
    resume: bool,
    directions: Sequence[Literal["maximize", "minimize"]] = ("maximize",),
) -> optuna.Study:
    """Create a study, or load it.

    Args:
        storage: Storage of the trials. None: the memory of this process.
        name: Name of the study.
        sampler: Sampler that proposes architectures.
        resume: Whether the study may exist.
        directions: `maximize` or `minimize` for each objective.

    Raises:
        UserError: The study exists and `resume` is false.
    """
    try:
        with _silent():
            return optuna.create_study(
                storage=storage,
                study_name=name,
                sampler=sampler,
                directions=list(directions),
                load_if_exists=resume,
            )
    except optuna.exceptions.DuplicatedStudyError as error:
        raise UserError("a search is here already; resume it, or choose another place") from error
