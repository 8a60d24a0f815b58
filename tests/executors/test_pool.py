"""Pools of workers: what they return, what becomes of those that die, hang or cannot start."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tasks import broken, dying, made, results, seldom, unmade, work

from diswot.errors import SearchFailed, UserError
from diswot.executors.packed import Packed
from diswot.executors.pool import Pool
from diswot.executors.processes import Pipes


def pool(size: int = 1, timeout: float | None = None, make: Any = made) -> Pool:
    return Pool(Pipes([Packed.pack(make, work)]), size, timeout)


@pytest.fixture(scope="module")
def two() -> Iterator[Pool]:
    with pool(2) as crew:
        yield crew


def test_tasks_are_done_and_questions_answered(two: Pool) -> None:
    tasks = {str(i): ("add", i, 1) for i in range(9)} | {"asking": ("ask", 1, "b")}

    found = results(two, tasks, lambda key, question: (key, question))

    assert found == {
        **{str(i): i + 1 for i in range(9)},
        "asking": [("asking", 1), ("asking", "b")],
    }


def test_each_worker_makes_its_own_once(two: Pool) -> None:
    found = results(two, {str(i): ("who",) for i in range(20)})

    assert 1 <= len(set(found.values())) <= 2 and os.getpid() not in found.values()


def test_task_whose_worker_is_killed_is_tried_again(two: Pool, tmp_path: Path) -> None:
    tasks = {"a": ("kill once", str(tmp_path / "mark")), "b": ("add", 1, 2)}

    assert results(two, tasks) == {"a": "survived", "b": 3}


def test_worker_that_is_killed_while_idle_is_replaced(two: Pool) -> None:
    (before,) = set(results(two, {"a": ("who",)}).values())
    os.kill(before, signal.SIGKILL)

    found = results(two, {str(i): ("add", i) for i in range(6)})

    assert found == {str(i): i for i in range(6)}


def test_task_that_kills_its_worker_fails_and_the_others_go_on(two: Pool) -> None:
    tasks = {"a": ("kill",), "b": ("add", 1, 2), "c": ("exit",), "d": ("add", 3, 4)}

    assert results(two, tasks) == {
        "a": ("killed", "its process died: SIGKILL"),
        "b": 3,
        "c": ("killed", "its process died: exit status 3"),
        "d": 7,
    }


def test_task_that_hangs_fails_and_the_others_go_on() -> None:
    with pool(1, timeout=0.5) as crew:
        found = results(crew, {"a": ("sleep",), "b": ("add", 1, 2)})

    assert found == {"a": ("timeout", "took longer than 0.5 s"), "b": 3}


def test_patience_is_longer() -> None:
    with pool(1, timeout=0.2) as crew:
        crew.put("a", ("sleep",), patience=3)
        start, outcomes = time.monotonic(), []
        while not outcomes:
            outcomes = crew.wait(lambda key, question: None)

    assert outcomes[0].kind == "timeout" and time.monotonic() - start >= 0.6


def test_waiting_may_end_without_an_outcome(two: Pool) -> None:
    assert two.wait(lambda key, question: None, 0.01) == []


def test_clock_that_jumps_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    jumps = iter(range(0, 10**9, 10**6))
    monkeypatch.setattr(time, "time", lambda: 1e9 + next(jumps))
    with pool(1, timeout=30) as crew:
        assert results(crew, {"a": ("add", 1), "b": ("add", 2)}) == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (unmade, UserError, "^no such teacher$"),
        (broken, SearchFailed, "^a worker failed: RuntimeError: no such teacher$"),
        (dying, SearchFailed, r"a worker process ended too early \(exit status 9\)"),
    ],
)
def test_workers_that_cannot_start(make: Any, error: type[Exception], message: str) -> None:
    threads = threading.active_count()
    with pytest.raises(error, match=message), pool(1, make=make):
        pass

    assert threading.active_count() == threads


def test_worker_that_was_ready_before_is_started_more_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = tmp_path / "starts"
    starts.mkdir()
    task = {"a": ("kill once", str(tmp_path / "mark"))}
    with pool(1, make=partial(seldom, str(starts))) as crew:
        assert results(crew, task) == {"a": "survived"}
    assert len(list(starts.iterdir())) == 6

    monkeypatch.setattr("diswot.executors.pool.RESTARTS", 2)
    for path in (*starts.iterdir(), tmp_path / "mark"):
        path.unlink()
    with (
        pytest.raises(SearchFailed, match=r"ended too early \(exit status 9\)"),
        pool(1, make=partial(seldom, str(starts))) as crew,
    ):
        results(crew, task)
    assert len(list(starts.iterdir())) == 3


def test_mistake_of_ours_is_raised() -> None:
    with (
        pytest.raises(SearchFailed, match="a worker failed: RuntimeError: a mistake of ours"),
        pool(1) as crew,
    ):
        results(crew, {"a": ("raise",)})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "at least 1, not 0"),
        ({"timeout": 0.0}, "above zero"),
        ({"timeout": math.nan}, "above zero"),
    ],
)
def test_numbers_that_are_wrong(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        pool(**options)
