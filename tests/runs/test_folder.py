"""The folder that keeps a run whose user names none."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from diswot.errors import UserError
from diswot.runs.folder import Stopped, chosen, resumable


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("diswot.runs.folder.RUNS", tmp_path / "runs")
    return tmp_path / "runs"


def test_runs_at_the_same_time_have_folders_of_their_own(runs: Path) -> None:
    make = partial(chosen, None, "subnet:timm/net", no_out=False)
    with make() as first, make() as second:
        assert [first, second] == [runs / f"subnet-timm-net-{n}" for n in (1, 2)]
        (runs / "subnet-timm-net-2" / "run.json").touch()
    assert list(runs.iterdir()) == [second]  # nothing was kept in the first


def test_a_mistake_uses_up_no_folder(runs: Path) -> None:
    with pytest.raises(UserError, match="wrong"), chosen(None, "s0", no_out=False):
        raise UserError("wrong")
    assert not list(runs.iterdir())


def test_the_users_own_folder_is_not_made(runs: Path, tmp_path: Path) -> None:
    with chosen(tmp_path / "mine", "s0", no_out=False) as out:
        assert out == tmp_path / "mine" and not out.exists()
    with chosen(None, "s0", no_out=True) as out:
        assert out is None
    assert not runs.exists()


def test_where_no_folder_can_be_made(runs: Path) -> None:
    runs.touch()
    with pytest.raises(UserError, match=r"cannot make a folder in .*runs: File exists; see --out"):
        chosen(None, "s0", no_out=False).__enter__()


def test_a_stopped_run_does_not_show_the_password_of_its_storage() -> None:
    with pytest.raises(Stopped) as stopped, resumable("postgresql://me:secret@host/db"):
        raise KeyboardInterrupt
    assert str(stopped.value) == "stopped; --resume continues postgresql://me:***@host/db"
