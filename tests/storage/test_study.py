from __future__ import annotations

import os
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
import toyspaces
from optuna.samplers import RandomSampler
from optuna.study import StudyDirection
from optuna.trial import TrialState
from sqlalchemy.exc import DatabaseError, IntegrityError, OperationalError, ProgrammingError

from diswot.errors import UserError
from diswot.storage import study as storage
from diswot.storage.compat import close, storage_of
from diswot.storage.run_files import JOURNAL
from diswot.storage.study import open_storage, open_study

assert toyspaces  # sets Optuna's verbosity


def study(where: str | Path | None, *, resume: bool = False, name: str = "a") -> optuna.Study:
    return open_study(open_storage(where), name, RandomSampler(seed=0), resume=resume)


def run(opened: optuna.Study, trials: int) -> list[tuple[int, dict[str, float], float | None]]:
    for _ in range(trials):
        trial = opened.ask()
        trial.suggest_int("a", 0, 9)
        trial.set_user_attr("note", [1, "b"])
        opened.tell(trial, trial.number)
    return [(t.number, t.params, t.value) for t in opened.trials]


def test_memory() -> None:
    assert open_storage(None) is None
    assert study(None).direction == StudyDirection.MAXIMIZE
    assert not study(None, resume=True).trials


@pytest.mark.parametrize(
    "place", [lambda path: path, lambda path: str(path), lambda path: f"sqlite:///{path}.db"]
)
def test_study_is_kept(place: Callable[[Path], str | Path], tmp_path: Path) -> None:
    where = place(tmp_path / "some" / "run" if place(tmp_path) == tmp_path else tmp_path / "run")
    before = run(study(where), 5)

    again = study(where, resume=True)

    assert run(again, 0) == before and len(before) == 5
    assert again.trials[3].user_attrs == {"note": [1, "b"]}
    assert again.direction == StudyDirection.MAXIMIZE
    assert run(study(where, resume=True), 2)[:5] == before
    with pytest.raises(UserError, match="a search is here already; resume it, or choose another"):
        study(where)
    assert not study(where, name="other").trials


def test_resume_of_nothing_starts(tmp_path: Path) -> None:
    assert not study(tmp_path / "new", resume=True).trials


@pytest.mark.parametrize("keep", [1, 30, -1])
def test_torn_last_line_is_cut_off(keep: int, tmp_path: Path) -> None:
    run(study(tmp_path), 3)
    path = tmp_path / JOURNAL
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(whole + lines[-1][:keep])

    again = study(tmp_path, resume=True)

    assert path.read_bytes().startswith(whole)
    assert [number for number, _, _ in run(again, 1)] == [0, 1, 2, 3]
    assert [t.state for t in study(tmp_path, resume=True).trials] == [TrialState.COMPLETE] * 4


def test_nothing_else_is_left_in_the_folder(tmp_path: Path) -> None:
    run(study(tmp_path), 2)

    assert [path.name for path in tmp_path.iterdir()] == [JOURNAL]


@pytest.mark.parametrize("relative", [False, True])
def test_lock_that_a_killed_process_of_optuna_left_is_no_obstacle(
    relative: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = Path("run") if relative else tmp_path / "run"
    run(study(place), 1)
    os.symlink(place / JOURNAL, place / f"{JOURNAL}.lock")
    start = time.monotonic()

    assert len(run(study(place, resume=True), 1)) == 2
    assert time.monotonic() - start < 20


@pytest.mark.parametrize(
    "content", [b"no journal\n", b'{"op_code":0}\n', b"[]\n", b"\n", b"\x00\x00\n{"]
)
def test_something_else_in_the_journal(content: bytes, tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_bytes(content)

    with pytest.raises(UserError, match=r"study\.journal cannot be used") as error:
        study(tmp_path, resume=True)
    assert "\n" not in str(error.value)
    assert (tmp_path / JOURNAL).read_bytes() == content


def test_place_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    for place in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UserError, match="cannot be used"):
            open_storage(place)


def test_journal_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).mkdir()

    with pytest.raises(UserError, match="cannot be used"):
        open_storage(tmp_path)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////no/such/folder/a.db",
        "nosuch://a/b",
        "postgresql://localhost:1/a",
        "redis://localhost:1",
        "sqlite://host/a",
        "://",
    ],
)
def test_database_that_cannot_be_opened(url: str) -> None:
    with pytest.raises(UserError, match=f"cannot open {url}: ") as error:
        study(url)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("error", "said"),
    [(ProgrammingError, 'type "studydirection" already exists'),
     (IntegrityError, 'duplicate key value violates unique constraint "pg_type_typname"'),
     (OperationalError, "table studies already exists")],
)  # fmt: skip
def test_tables_that_others_make_at_the_same_time(
    error: type[DatabaseError], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes that begin together on an empty database; an end to it if it never works."""
    url, get, tries = f"sqlite:///{tmp_path}/a.db", optuna.storages.get_storage, []

    def opened(given: str) -> optuna.storages.BaseStorage:
        tries.append(given)
        if len(tries) < most:
            raise error("CREATE", None, Exception(said))
        return get(given)

    monkeypatch.setattr(optuna.storages, "get_storage", opened)
    monkeypatch.setattr(storage, "PAUSE", 0.0)
    most = 4
    assert open_storage(url) is not None and tries == [url] * 4
    most = 1000
    with pytest.raises(UserError, match=f"cannot open {url}: .*{said}"):
        open_storage(url)
    assert len(tries) == 4 + storage.TRIES + 1


@pytest.mark.parametrize("scheme", ["postgres", "postgresql"])
def test_what_postgres_needs_is_told(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "find_spec", lambda name: None)
    for driver in ("psycopg", "psycopg2"):
        monkeypatch.setitem(sys.modules, driver, None)  # so that importing it fails
    with pytest.raises(UserError, match=r"needs psycopg: pip install 'diswot\[postgres\]'$"):
        study(f"{scheme}://localhost:1/a")


def test_password_is_not_shown() -> None:
    with pytest.raises(
        UserError, match=r"cannot open postgresql://me:\*\*\*@localhost:1/a: "
    ) as error:
        study("postgresql://me:secret@localhost:1/a")
    assert "secret" not in str(error.value)


def changed(place: Path, *statements: str) -> None:
    """Runs SQL in a database of SQLite."""
    connection = sqlite3.connect(place)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def test_a_database_of_another_version_of_optuna_names_the_upgrade(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'old.db'}"
    close(storage_of(study(url)))
    changed(tmp_path / "old.db", "update alembic_version set version_num = 'v2.6.0.a'")
    held = (tmp_path / "old.db").read_bytes()

    with pytest.raises(UserError) as error:
        study(url, resume=True)

    said = str(error.value)
    assert said.endswith(f"copy the database, then: optuna storage upgrade --storage {url}")
    assert (tmp_path / "old.db").read_bytes() == held
    changed(tmp_path / "old.db", "update alembic_version set version_num = 'v99.0.0.a'")
    with pytest.raises(UserError, match=r"pip install -U optuna$"):
        study(url, resume=True)


@pytest.mark.parametrize(
    ("table", "statements"),
    [
        ("studies", ["create table studies (id integer primary key, title text)"]),
        ("trials", ["create table trials (id integer primary key, drug text)"]),
        ("alembic_version", ["create table alembic_version (version_num text)",
                             "insert into alembic_version values ('5c8e')"]),
    ],
)  # fmt: skip
def test_a_table_of_another_program_is_left_alone(
    table: str, statements: list[str], tmp_path: Path
) -> None:
    place = tmp_path / "clinic.db"
    changed(place, *statements)
    held = place.read_bytes()

    with pytest.raises(UserError, match=f"has a table {table} that is not Optuna's; name another"):
        study(f"sqlite:///{place}")
    assert place.read_bytes() == held


def test_nothing_is_printed_and_the_users_verbosity_stays(caplog: pytest.LogCaptureFixture) -> None:
    before = optuna.logging.get_verbosity()
    optuna.logging.enable_propagation()
    try:
        for level in (optuna.logging.INFO, optuna.logging.ERROR):
            optuna.logging.set_verbosity(level)
            study(None)
            assert optuna.logging.get_verbosity() == level
    finally:
        optuna.logging.disable_propagation()
        optuna.logging.set_verbosity(before)
    assert not caplog.messages
