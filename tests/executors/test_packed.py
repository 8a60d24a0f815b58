"""What workers make and do, on its way."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from tasks import made, work

from diswot.errors import UserError
from diswot.executors.packed import Packed
from diswot.utils import user_code


def test_what_cannot_be_pickled_is_told() -> None:
    with pytest.raises(UserError, match="that can be pickled, as functions of a module can") as it:
        Packed.pack(lambda: 3, work)
    assert "\n" not in str(it.value)


def test_what_is_packed_is_unpacked() -> None:
    assert Packed.pack(made, work).unpack() == (made, work)


def test_files_of_a_user_are_there_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text("def make():\n    return 7\n")
    loaded: list[user_code.UserFile] = []
    packed = Packed.pack(user_code.load(f"{mine}:make"), work)
    monkeypatch.setattr(user_code, "load_source", loaded.append)
    packed.unpack()

    assert user_code.UserFile(mine.resolve(), mine.read_bytes()) in loaded


def test_another_way_to_pickle() -> None:
    given: list[Any] = []

    def dumps(functions: Any) -> bytes:
        given.append(functions)
        return pickle.dumps((os.getpid, work))

    assert Packed.pack(made, work, dumps).unpack() == (os.getpid, work)
    assert given == [(made, work)]
