"""The workers of a driver: who has which task, and what becomes of those that die or hang."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Self

from diswot.errors import SearchFailed, UserError
from diswot.executors.protocol import Message, Transport

TRIES = 3  # of a task whose worker dies: the task may not be to blame
STARTS = 3  # workers in a row that die before they are ready, until that is given up
RESTARTS = 30  # the same, where one was ready before: that it can be done is known

Answer = Callable[[Hashable, Any], Any]  # given a task's key and a question


@dataclass(frozen=True)
class Outcome:
    """How a task ended.

    Attributes:
        key: The task's.
        result: What work returned, if it did.
        kind: Else `killed` or `timeout`.
        reason: One line on that.
    """

    key: Hashable
    result: Any = None
    kind: str = ""
    reason: str = ""


@dataclass(eq=False)
class _Worker:
    """A worker and the task that it has."""

    number: int
    handle: Any
    ready: bool = False
    task: _Task | None = None


@dataclass
class _Task:
    key: Hashable
    content: Any
    patience: int = 1
    tries: int = 0
    deadline: float | None = None


@dataclass
class Pool:
    """So many workers, each with one task at most.

    As a context it ends its workers on the way out.

    Attributes:
        transport: Starts workers and talks to them.
        size: How many.
        timeout: Seconds that a task may take.
    """

    transport: Transport
    size: int
    timeout: float | None = None
    _workers: list[_Worker] = field(default_factory=list)
    _tasks: deque[_Task] = field(default_factory=deque)
    _failed: int = 0
    _begun: bool = False

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UserError(f"workers must be at least 1, not {self.size}")
        if self.timeout is not None and not self.timeout > 0:
            raise UserError(f"a timeout must be above zero, not {self.timeout}")

    def __enter__(self) -> Self:
        """Start the workers; returns when the first is ready.

        Raises:
            UserError: What `make` said.
            SearchFailed: Workers die before they are ready.
        """
        try:
            self._workers = [self._start(number) for number in range(self.size)]
            while not any(worker.ready for worker in self._workers):
                self._exchange(lambda key, question: None, None)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers."""
        while self._workers:
            self.transport.kill(self._workers.pop().handle)

    @property
    def room(self) -> int:
        """How many more tasks would be begun at once."""
        idle = sum(worker.ready and worker.task is None for worker in self._workers)
        return max(0, idle - len(self._tasks))

    @property
    def busy(self) -> int:
        """Tasks that have not ended."""
        return len(self._tasks) + sum(worker.task is not None for worker in self._workers)

    def put(self, key: Hashable, content: Any, *, patience: int = 1) -> None:
        """Give a task to the next worker that is free; it may take `patience` times `timeout`."""
        self._tasks.append(_Task(key, content, patience))
        self._hand_out()

    def wait(self, answer: Answer, seconds: float | None = None) -> list[Outcome]:
        """Answer what workers ask until tasks end, or some seconds have passed.

        Args:
            answer: Given a task's key and a question.
            seconds: How long to wait; until something happens if not given. There may be no
                outcome in the end.
        """
        return self._exchange(answer, seconds)

    def _exchange(self, answer: Answer, seconds: float | None) -> list[Outcome]:
        outcomes = []
        by_handle = {id(worker.handle): worker for worker in self._workers}
        handles = [worker.handle for worker in self._workers]
        for handle, message in self.transport.receive(handles, self._patience(seconds)):
            outcomes += self._heard(by_handle[id(handle)], message, answer)
        outcomes += self._overdue()
        self._hand_out()
        return outcomes

    def _patience(self, seconds: float | None) -> float | None:
        """Seconds until something is due."""
        deadlines = [worker.task.deadline for worker in self._workers if worker.task]
        dues = [due - time.monotonic() for due in deadlines if due is not None]
        dues += [] if seconds is None else [seconds]
        return max(0.0, min(dues)) if dues else None

    def _heard(self, worker: _Worker, message: Message | None, answer: Answer) -> list[Outcome]:
        if message is None:
            return self._died(worker)
        what, content = message
        if what == "ready":
            worker.ready, self._begun, self._failed = True, True, 0
        elif what == "failed":
            raise content
        elif worker.task is not None and what == "ask":
            self.transport.send(worker.handle, ("answer", answer(worker.task.key, content)))
        elif worker.task is not None:
            task, worker.task = worker.task, None
            return [Outcome(task.key, content)]
        return []

    def _died(self, worker: _Worker) -> list[Outcome]:
        """Put another in its place, which takes up the task, if that was not tried enough."""
        how, task = self.transport.bury(worker.handle), worker.task
        self._failed += not worker.ready
        if self._failed >= (RESTARTS if self._begun else STARTS):
            raise SearchFailed(
                f"a worker process ended too early ({how}): out of memory, or its start failed"
            )
        self._replace(worker)
        if task is None:
            return []
        if task.tries < TRIES:
            task.deadline = None
            self._tasks.appendleft(task)
            return []
        return [Outcome(task.key, kind="killed", reason=f"its process died: {how}")]

    def _overdue(self) -> list[Outcome]:
        outcomes, now = [], time.monotonic()
        for worker in list(self._workers):
            task = worker.task
            if task is not None and task.deadline is not None and task.deadline <= now:
                self.transport.kill(worker.handle)
                self._replace(worker)
                reason = f"took longer than {self.timeout:g} s"
                outcomes.append(Outcome(task.key, kind="timeout", reason=reason))
        return outcomes

    def _start(self, number: int) -> _Worker:
        return _Worker(number, self.transport.start(number))

    def _replace(self, worker: _Worker) -> None:
        self._workers[self._workers.index(worker)] = self._start(worker.number)

    def _hand_out(self) -> None:
        for worker in self._workers:
            if self._tasks and worker.ready and worker.task is None:
                task = worker.task = self._tasks.popleft()
                task.tries += 1
                if self.timeout is not None:
                    task.deadline = time.monotonic() + self.timeout * task.patience
                self.transport.send(worker.handle, ("task", task.content))
