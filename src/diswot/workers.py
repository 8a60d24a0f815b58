"""Worker processes that do tasks one at a time, and what becomes of those that die or hang.

A worker makes what it needs once, with `make`, and then calls `work` for each task. While at it,
work may ask its driver something. All decisions are the driver's; a worker holds nothing that
cannot be made again, and ends with the driver, however that ends.

What carries messages to workers and back is a `Transport`: here, pipes to processes of this
machine.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Protocol, Self

from diswot import userfile
from diswot.errors import SearchFailed, UserError
from diswot.lifetime import die_with_parent

TRIES = 3  # of a task whose worker dies: the task may not be to blame
GRACE = 10  # seconds for a process to end that has closed its pipe
STARTS = 3  # workers in a row that die before they are ready, until that is given up
RESTARTS = 30  # the same, where one was ready before: that it can be done is known

Ask = Callable[[Any], Any]
Answer = Callable[[Hashable, Any], Any]  # given a task's key and a question
Make = Callable[[], Any]
Work = Callable[[Any, Any, Ask], Any]
Message = tuple[str, Any]


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


class Transport(Protocol):
    """Starts workers and exchanges messages with them; a handle stands for a worker.

    A worker sends `ready` or `failed` at first; then, for each task that it gets, any number of
    `ask`, each of which wants an answer, and `done`.
    """

    def start(self, number: int) -> Any:
        """Start worker `number`; returns its handle."""

    def send(self, handle: Any, message: Message) -> None:
        """Send a task or an answer; that the worker is dead is for `receive` to say."""

    def receive(
        self, handles: Sequence[Any], seconds: float | None
    ) -> list[tuple[Any, Message | None]]:
        """Wait for messages, one a worker at most; None is from a dead one."""

    def kill(self, handle: Any) -> None:
        """End a worker that lives."""

    def bury(self, handle: Any) -> str:
        """How a worker ended that is dead."""


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


@dataclass(frozen=True, eq=False)
class _Process:
    process: BaseProcess
    pipe: Connection


@dataclass(frozen=True)
class Pipes:
    """Workers that are processes of this machine.

    Attributes:
        made: What workers do; worker i number i, from the first on again.
        threads: Of each process.
    """

    made: Sequence[Packed]
    threads: int = 1

    def start(self, number: int) -> _Process:
        """Start a process, which imports everything anew."""
        spawn = multiprocessing.get_context("spawn")
        ours, theirs = spawn.Pipe()
        made = self.made[number % len(self.made)]
        arguments = (theirs, made, self.threads)
        process = spawn.Process(target=_serve, args=arguments, daemon=True)
        process.start()
        theirs.close()
        return _Process(process, ours)

    def send(self, handle: _Process, message: Message) -> None:
        """Send over the pipe."""
        try:
            handle.pipe.send(message)
        except OSError:
            return  # it is dead: `receive` will say so

    def receive(
        self, handles: Sequence[_Process], seconds: float | None
    ) -> list[tuple[_Process, Message | None]]:
        """Wait on all pipes."""
        by_pipe = {handle.pipe: handle for handle in handles}
        return [(by_pipe[pipe], _read(pipe)) for pipe in wait(list(by_pipe), seconds)]  # type: ignore[index,arg-type]

    def kill(self, handle: _Process) -> None:
        """Kill the process."""
        handle.pipe.close()
        handle.process.kill()
        handle.process.join()

    def bury(self, handle: _Process) -> str:
        """The signal or the exit status."""
        handle.pipe.close()
        handle.process.join(GRACE)
        if handle.process.exitcode is None:  # it closed the pipe and goes on, whatever it does
            self.kill(handle)
        status = handle.process.exitcode or 0
        return signal.Signals(-status).name if status < 0 else f"exit status {status}"


def _read(pipe: Connection) -> Message | None:
    """A message; None if there is but the beginning of one, of a process that was killed."""
    try:
        message: Message = pipe.recv()
    except (EOFError, OSError, pickle.UnpicklingError):
        return None
    return message


def _serve(pipe: Connection, packed: Packed, threads: int) -> None:
    """Life of a worker process."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdout = sys.stderr  # standard output is the driver's, for the result
    os.environ["OMP_NUM_THREADS"] = str(threads)  # before torch is imported
    try:
        pipe.send(talk(pipe, packed, threads))
    except (EOFError, OSError):
        return  # the driver is gone, or does not want us any more


def talk(pipe: Channel, packed: Packed, threads: int) -> Message:
    """What a worker says from its start on; returns its last words, for the driver to raise."""

    def ask(question: Any) -> Any:
        pipe.send(("ask", question))
        return pipe.recv()[1]

    try:
        make, work = packed.unpack()
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(threads)
        held = make()
    except Exception as error:  # whatever a user's code raises is told in one line
        return _last_words(error)
    pipe.send(("ready", None))
    try:
        while True:
            pipe.send(("done", work(held, pipe.recv()[1], ask)))
    except (EOFError, OSError):
        raise
    except Exception as error:
        return _last_words(error)


def _last_words(error: Exception) -> Message:
    if isinstance(error, UserError):
        return "failed", error
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return "failed", SearchFailed(f"a worker failed: {text}")


class Channel(Protocol):
    """One end of a pipe."""

    def send(self, message: Message) -> None:
        """Send a message."""

    def recv(self) -> Message:
        """Wait for one."""


@dataclass(frozen=True)
class Packed:
    """What a worker makes and how it works, on the way to another process.

    Attributes:
        files: The users' files that are imported there first.
        pickled: `make` and `work`.
    """

    files: tuple[userfile.Source, ...]
    pickled: bytes

    @classmethod
    def pack(cls, make: Make, work: Work, dumps: Callable[[Any], bytes] = pickle.dumps) -> Self:
        """Pack two functions and all that they hold.

        Args:
            make: As the module says.
            work: As well.
            dumps: Pickles; what it makes is read by `pickle`.

        Raises:
            UserError: Something cannot be pickled.
        """
        try:
            return cls(userfile.loaded(), dumps((make, work)))
        except Exception as error:  # pickling raises whatever comes
            reason = " ".join(str(error).split())
            raise UserError(
                f"workers need a teacher and a space that can be pickled, as functions of a "
                f"module can: {reason}"
            ) from error

    def unpack(self) -> tuple[Make, Work]:
        """The two functions."""
        for source in self.files:
            userfile.load_source(source)
        functions: tuple[Make, Work] = pickle.loads(self.pickled)
        return functions
