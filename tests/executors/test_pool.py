"""Rules of a pool, on workers that a test moves by hand and a clock that it sets."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from diswot.errors import SearchFailed, UserError
from diswot.executors.pool import Pool, running
from diswot.executors.protocol import TaskResult
from diswot.executors.worker import Reply

READY = Reply()


@dataclass(eq=False)
class Puppet:
    number: int
    tasks: list[Any] = field(default_factory=list)
    killed: bool = False


@dataclass
class Stage:
    """Backend whose workers reply as the script says, one line a call of `receive`.

    A line says what the newest worker of a number replies, by number. Each call takes a second, or
    as long as the pool would wait if that is less.
    """

    script: list[dict[int, Reply]]
    now: float = 0.0
    workers: list[Puppet] = field(default_factory=list)

    def start(self, number: int) -> Puppet:
        self.workers.append(Puppet(number))
        return self.workers[-1]

    def send(self, worker: Puppet, task: Any) -> None:
        worker.tasks.append(task)

    def receive(
        self, workers: Sequence[Puppet], seconds: float | None
    ) -> list[tuple[Puppet, Reply]]:
        assert not any(worker.killed for worker in workers)
        self.now += 1.0 if seconds is None else min(1.0, seconds)
        by_number = {worker.number: worker for worker in workers}
        line = self.script.pop(0) if self.script else {}
        return [(by_number[number], reply) for number, reply in line.items()]

    def kill(self, worker: Puppet) -> None:
        worker.killed = True


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a started pool of workers that are ready one by one."""

    def begin(*script: dict[int, Reply], size: int = 1, timeout: float | None = None) -> Any:
        stage = Stage([dict.fromkeys(range(size), READY), *script])
        monkeypatch.setattr(time, "monotonic", lambda: stage.now)
        pool = Pool(stage, size, timeout)
        pool.start()
        return pool, stage

    return begin


def test_one_message_out_and_one_back(begun: Any) -> None:
    pool, stage = begun({0: Reply(4)})
    assert pool.room == 1
    pool.submit("a", 2)

    assert pool.room == 0 and stage.workers[0].tasks == [2]
    assert pool.wait() == [TaskResult("a", 4)] and pool.room == 1
    assert [worker.tasks for worker in stage.workers] == [[2]] and not stage.script


def test_a_worker_has_one_task_and_takes_the_oldest_next(begun: Any) -> None:
    pool, stage = begun({1: Reply("b")}, {0: Reply("a"), 1: Reply("c")}, size=2)
    for key in "abcd":
        pool.submit(key, key)
    assert [worker.tasks for worker in stage.workers] == [["a"], ["b"]] and pool.room == 0

    assert pool.wait() == [TaskResult("b", "b")]
    assert pool.wait() == [TaskResult("a", "a"), TaskResult("c", "c")]
    assert [worker.tasks for worker in stage.workers] == [["a", "d"], ["b", "c"]]


def test_waiting_returns_when_a_worker_becomes_free(begun: Any) -> None:
    pool, stage = begun({1: Reply(death="SIGKILL")}, {}, {1: READY}, {0: Reply(1)}, size=2)
    assert pool.wait(0.5) == [] and pool.room == 1
    pool.submit("a", 1)

    assert pool.wait() == [] and pool.room == 1 and len(stage.script) == 1
    assert pool.wait() == [TaskResult("a", 1)]


def test_waiting_without_a_task_lasts_until_a_worker_is_ready(begun: Any) -> None:
    """Or else a driver that holds its tasks back would ask for ever and never hear of a worker."""
    pool, stage = begun({0: Reply(death="SIGKILL")}, {}, {}, {0: READY})
    assert pool.wait(0.5) == [] and pool.room == 0

    assert pool.wait() == [] and pool.room == 1 and not stage.script


def test_waiting_ends(begun: Any) -> None:
    pool, stage = begun()

    assert pool.wait() == [] and stage.now == 1.0  # nothing to wait for
    assert pool.wait(2.5) == [] and stage.now == 3.5
    pool.submit("a", 1)
    assert pool.wait(1.5) == [] and stage.now == 5.0


def test_a_task_is_tried_three_times(begun: Any) -> None:
    died = {0: Reply(death="SIGKILL")}
    pool, stage = begun(died, {0: READY}, died, {0: READY}, died, {0: READY}, {0: Reply(1)})
    pool.submit("a", "bad")
    pool.submit("b", "good")

    assert pool.wait() == [
        TaskResult("a", failure="killed", reason="its process died: SIGKILL"),
    ]
    assert pool.wait() == [TaskResult("b", 1)]
    assert [worker.tasks for worker in stage.workers] == [["bad"], ["bad"], ["bad"], ["good"]]
    assert [worker.killed for worker in stage.workers] == [True, True, True, False]


def test_a_worker_that_dies_without_a_task_is_replaced(begun: Any) -> None:
    pool, stage = begun({0: Reply(death="SIGKILL")}, {0: READY}, {0: Reply(1)})
    assert pool.wait(0.5) == [] and pool.room == 0
    pool.submit("a", 1)

    assert pool.wait() == [TaskResult("a", 1)] and stage.workers[1].tasks == [1]


def test_time_limit(begun: Any) -> None:
    pool, stage = begun({}, {}, {}, {}, size=2, timeout=1.5)
    pool.submit("a", 1)
    pool.submit("b", 2)

    late = [TaskResult(name, failure="timeout", reason="took longer than 1.5 s") for name in "ab"]
    assert pool.wait() == late
    assert stage.now == 1.0 + 1.5
    assert [worker.number for worker in stage.workers] == [0, 1, 0, 1]
    assert [worker.killed for worker in stage.workers] == [True, True, False, False]


def test_time_of_a_task_begins_with_its_worker(begun: Any) -> None:
    died = {0: Reply(death="SIGKILL")}
    pool, stage = begun(died, {}, {}, {}, {0: READY}, {}, {0: Reply(1)}, timeout=2.5)
    pool.submit("a", 1)

    assert [pool.wait(), pool.wait()] == [[TaskResult("a", 1)], []]
    assert stage.now == 1.0 + 7.0


@pytest.mark.parametrize(("begins", "starts"), [(False, 3), (True, 30)])
def test_workers_that_die_before_they_are_ready(begins: bool, starts: int) -> None:
    died = {0: Reply(death="exit status 9")}
    stage = Stage([{0: READY}] * begins + [died] * 99)
    with (
        pytest.raises(SearchFailed, match=r"ended too early \(exit status 9\)"),
        running(stage, 1, None) as pool,
    ):
        pool.submit("a", 1)
        while True:
            pool.wait()

    assert len(stage.workers) == starts + begins
    assert all(worker.killed for worker in stage.workers)


def test_a_worker_that_is_ready_ends_the_count(begun: Any) -> None:
    died = {0: Reply(death="exit status 9")}
    pool, stage = begun(*([died] * 20 + [{0: READY}]) * 3)
    for _ in range(3):
        pool.wait(21)
        assert pool.room == 1

    assert len(stage.workers) == 61


@pytest.mark.parametrize("error", [UserError("no such teacher"), SearchFailed("a worker failed")])
def test_errors_of_workers_are_raised(error: Any) -> None:
    stage = Stage([{0: READY}, {1: Reply(error=error)}])
    with pytest.raises(type(error), match=str(error)), running(stage, 2, None) as pool:
        pool.wait(5)

    assert all(worker.killed for worker in stage.workers)


@pytest.mark.parametrize(
    ("size", "timeout", "message"),
    [(0, None, "at least 1, not 0"), (1, 0.0, "above zero"), (1, math.nan, "above zero")],
)
def test_numbers_that_are_wrong(size: int, timeout: float | None, message: str) -> None:
    with pytest.raises(UserError, match=message), running(Stage([]), size, timeout):
        pass
