"""What a worker is sent, and what it sends back."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from tasks import Stubborn, broken, made, unmade

from diswot.errors import SearchFailed, UserError
from diswot.executors.worker import Payload, Reply, attempt, read, write
from diswot.utils import user_code


def test_what_cannot_be_pickled_is_named() -> None:
    with pytest.raises(UserError, match="that can be pickled, as functions of a module can") as it:
        Payload.pack(lambda: abs)
    assert "\n" not in str(it.value)


def test_the_function_that_does_tasks() -> None:
    do = pickle.loads(pickle.dumps(Payload.pack(made))).do(torch.get_num_threads())

    assert do(("add", 1, 2)) == 3 and do(("who",)) == os.getpid()


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_threads_of_a_worker() -> None:
    before = torch.get_num_threads()
    try:
        Payload.pack(made).do(before + 1)
        assert torch.get_num_threads() == before + 1
        assert os.environ["OMP_NUM_THREADS"] == str(before + 1)
    finally:
        torch.set_num_threads(before)


def test_files_of_a_user_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text("def make():\n    return abs\n")
    loaded: list[user_code.UserFile] = []
    payload = Payload.pack(user_code.load(f"{mine}:make"))
    monkeypatch.setattr(user_code, "load_file", loaded.append)

    assert payload.do(torch.get_num_threads()) is abs
    assert user_code.UserFile(mine.resolve(), mine.read_bytes()) in loaded


def test_another_way_to_pickle() -> None:
    given: list[Any] = []

    def dumps(make: Any) -> bytes:
        given.append(make)
        return pickle.dumps(os.getpid)

    assert Payload.pack(made, dumps).do(torch.get_num_threads()) == os.getpid()  # type: ignore[comparison-overlap]
    assert given == [made]


@pytest.mark.parametrize(
    ("function", "kind", "text"),
    [
        (unmade, UserError, "no such teacher"),
        (broken, SearchFailed, "a worker failed: RuntimeError: no such teacher"),
    ],
)
def test_errors_become_one_line(function: Any, kind: type[Exception], text: str) -> None:
    error = attempt(function).error

    assert type(error) is kind and str(error) == text
    assert str(attempt(function, prefix="on a: ").error) == f"on a: {text}"


def test_replies_travel() -> None:
    def raising() -> None:
        raise Stubborn("a", "b")

    assert read(write(attempt(max, 1, 2))) == Reply(2)
    assert str(read(write(attempt(raising))).error) == "a worker failed: Stubborn: a and b"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (lambda: 3, "a worker failed: PicklingError: Can.t pickle"),
        (Stubborn("a", "b"), "a worker's result cannot be unpickled: TypeError: .*missing 1"),
    ],
)
def test_values_that_cannot_travel(value: Any, text: str) -> None:
    with pytest.raises(SearchFailed, match=text):
        raise read(write(Reply(value))).error or AssertionError("it has travelled")
