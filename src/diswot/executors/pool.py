"""Pool of workers: assigns tasks, retries after a worker's death, enforces timeouts.

The same for processes and for Ray's actors. No library keeps these rules together: a process pool
of the standard library or of loky ends with the first worker that dies and knows no time limit.
Pebble's knows both, but it ends when a worker dies between two tasks or before it is ready. It
never ends a task whose process exits with status 0, and keeps time limits by a clock that may jump.
Its workers share one pipe and its lock, so that one which is killed while it sends blocks them all.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from diswot.errors import SearchFailed, UserError
from diswot.executors.protocol import KILLED, TIMEOUT, TaskResult
from diswot.executors.worker import Reply

TRIES = 3  # of a task whose worker dies: the task may not be to blame
STARTS = 3  # workers in a row that die before one is ready, until the search fails
RESTARTS = 30  # the same once one was ready: workers can be made, but memory may be short


class Backend(Protocol):
    """Means of starting workers and of exchanging messages with them."""

    def start(self, number: int) -> Any:
        """Start worker `number`, which replies once when it is ready."""

    def send(self, worker: Any, task: Any) -> None:
        """Send a task; `receive` reports a worker that is dead."""

    def receive(self, workers: Sequence[Any], seconds: float | None) -> list[tuple[Any, Reply]]:
        """Wait for replies, at most one a worker, or for deaths."""

    def kill(self, worker: Any) -> None:
        """End a worker, alive or dead."""


@dataclass
class _Task:
    key: Hashable
    content: Any
    tries: int = 0
    deadline: float | None = None


@dataclass(eq=False)
class _Slot:
    """Place of a worker, which is filled again when the worker dies."""

    number: int
    worker: Any
    ready: bool = False
    task: _Task | None = None


@dataclass
class Pool:
    """Executor over workers with one task each at most, which may take `timeout` seconds."""

    backend: Backend
    size: int
    timeout: float | None = None
    _slots: list[_Slot] = field(default_factory=list)
    _queue: deque[_Task] = field(default_factory=deque)
    _deaths: int = 0  # in a row, of workers that were not ready
    _begun: bool = False

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UserError(f"workers must be at least 1, not {self.size}")
        if self.timeout is not None and not self.timeout > 0:
            raise UserError(f"a timeout must be above zero, not {self.timeout}")

    @property
    def room(self) -> int:
        """Number of tasks that free workers would begin at once."""
        free = sum(slot.ready and slot.task is None for slot in self._slots)
        return max(0, free - len(self._queue))

    def submit(self, key: Hashable, task: Any) -> None:
        """Give a task to the next worker that is free."""
        self._queue.append(_Task(key, task))
        self._hand_out()

    def wait(self, seconds: float | None = None) -> list[TaskResult]:
        """Wait until tasks end, a worker becomes free, or the seconds have passed."""
        end = None if seconds is None else time.monotonic() + seconds
        before = self.room
        while (
            seconds is not None
            or self._queue
            or any(slot.task or not slot.ready for slot in self._slots)
        ):
            results = self._step(end)
            if results or self.room > before or (end is not None and time.monotonic() >= end):
                return results
        return []

    def start(self) -> None:
        """Start all workers; return when the first is ready."""
        for number in range(self.size):
            self._slots.append(_Slot(number, self.backend.start(number)))
        while not self._begun:
            self._step(None)

    def close(self) -> None:
        """End all workers."""
        while self._slots:
            self.backend.kill(self._slots.pop().worker)

    def _step(self, end: float | None) -> list[TaskResult]:
        results = []
        slots = {id(slot.worker): slot for slot in self._slots}
        workers = [slot.worker for slot in self._slots]
        for worker, reply in self.backend.receive(workers, self._seconds(end)):
            results += self._received(slots[id(worker)], reply)
        results += self._overdue()
        self._hand_out()
        return results

    def _seconds(self, end: float | None) -> float | None:
        """Seconds until the first deadline."""
        tasks = [slot.task for slot in self._slots if slot.task is not None]
        dues = [due for due in (end, *(task.deadline for task in tasks)) if due is not None]
        return max(0.0, min(dues) - time.monotonic()) if dues else None

    def _received(self, slot: _Slot, reply: Reply) -> list[TaskResult]:
        if reply.error is not None:
            raise reply.error
        if reply.death:
            return self._died(slot, reply.death)
        task, slot.task = slot.task, None
        if task is not None:
            return [TaskResult(task.key, reply.value)]
        slot.ready, self._begun, self._deaths = True, True, 0
        return []

    def _died(self, slot: _Slot, how: str) -> list[TaskResult]:
        """Start another worker, and try the task again unless it was tried often enough."""
        self._deaths += not slot.ready
        if self._deaths >= (RESTARTS if self._begun else STARTS):
            raise SearchFailed(
                f"a worker process ended too early ({how}): out of memory, or its start failed"
            )
        task = self._replace(slot)
        if task is None:
            return []
        if task.tries < TRIES:
            self._queue.appendleft(task)
            return []
        return [TaskResult(task.key, failure=KILLED, reason=f"its process died: {how}")]

    def _overdue(self) -> list[TaskResult]:
        results, now = [], time.monotonic()
        for slot in self._slots:
            if slot.task is not None and slot.task.deadline is not None:
                if slot.task.deadline > now:
                    continue
                reason = f"took longer than {self.timeout:g} s"
                results.append(TaskResult(slot.task.key, failure=TIMEOUT, reason=reason))
                self._replace(slot)
        return results

    def _replace(self, slot: _Slot) -> _Task | None:
        """Put a new worker in a slot; return the task of the old one."""
        self.backend.kill(slot.worker)
        task, slot.task, slot.ready = slot.task, None, False
        slot.worker = self.backend.start(slot.number)
        return task

    def _hand_out(self) -> None:
        for slot in self._slots:
            if self._queue and slot.ready and slot.task is None:
                task = slot.task = self._queue.popleft()
                task.tries += 1
                if self.timeout is not None:
                    task.deadline = time.monotonic() + self.timeout
                self.backend.send(slot.worker, task.content)


@contextmanager
def running(backend: Backend, size: int, timeout: float | None) -> Iterator[Pool]:
    """Keep workers while the context lasts.

    Raises:
        UserError: A number is wrong, or a worker's `make` raised this.
        SearchFailed: Workers die before they are ready.
    """
    pool = Pool(backend, size, timeout)
    try:
        pool.start()
        yield pool
    finally:
        pool.close()
