"""Tasks done in this process."""

from __future__ import annotations

import time

import pytest

from diswot.executors.inline import Inline
from diswot.executors.protocol import TaskResult


def test_a_task_is_done_when_it_is_waited_for() -> None:
    done: list[int] = []

    def double(task: int) -> int:
        done.append(task)
        return 2 * task

    inline = Inline(double)
    assert inline.room == 1
    inline.submit("a", 3)

    assert inline.room == 0 and done == []
    assert inline.wait(5) == [TaskResult("a", 6)]
    assert inline.room == 1 and done == [3]


def test_tasks_are_done_in_order() -> None:
    inline = Inline(str)
    inline.submit("a", 1)
    inline.submit("b", 2)

    assert [inline.wait(), inline.wait()] == [[TaskResult("a", "1")], [TaskResult("b", "2")]]


def test_waiting_without_a_task() -> None:
    start = time.monotonic()

    assert Inline(str).wait() == [] and Inline(str).wait(0.05) == []
    assert 0.05 <= time.monotonic() - start < 5


def test_errors_reach_the_caller_as_they_are() -> None:
    inline = Inline(int)
    inline.submit("a", "no number")

    with pytest.raises(ValueError, match="no number"):
        inline.wait()
    assert inline.room == 1
