"""Workers that are processes of this machine, each with a pipe."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from diswot.executors.pool import running
from diswot.executors.protocol import Executor, Make
from diswot.executors.worker import Payload, Reply, attempt, read, write

GRACE = 10  # seconds for a process to end after it has closed its pipe
_PR_SET_PDEATHSIG = 1


def process_pool(
    makes: Sequence[Make], workers: int, *, threads: int = 1, timeout: float | None = None
) -> AbstractContextManager[Executor]:
    """Return a context that keeps worker processes.

    Args:
        makes: Worker i calls `makes[i % len(makes)]` once, for the function that does its tasks.
        workers: Number of processes.
        threads: Threads of each process.
        timeout: Seconds that a task may take; without a limit by default.

    Raises:
        UserError: A number is wrong, a `make` cannot be pickled, or it raised this error.
        SearchFailed: Workers die before they are ready.
    """
    payloads = [Payload.pack(make) for make in makes]
    return running(ProcessBackend(payloads, threads), workers, timeout)


@dataclass(frozen=True, eq=False)
class _Process:
    process: BaseProcess
    pipe: Connection


@dataclass(frozen=True)
class ProcessBackend:
    """Backend of processes, which import everything anew and take payloads in turn."""

    payloads: Sequence[Payload]
    threads: int = 1

    def start(self, number: int) -> _Process:
        """Start a process and send it what it is made of."""
        spawn = multiprocessing.get_context("spawn")
        ours, end = spawn.Pipe()
        process = spawn.Process(target=_serve, args=(end, self.threads), daemon=True)
        process.start()
        end.close()
        worker = _Process(process, ours)
        self.send(worker, self.payloads[number % len(self.payloads)])
        return worker

    def send(self, worker: _Process, task: object) -> None:
        """Send over the pipe."""
        with suppress(OSError):  # the process is dead
            worker.pipe.send(task)

    def receive(
        self, workers: Sequence[_Process], seconds: float | None
    ) -> list[tuple[_Process, Reply]]:
        """Wait on all pipes and for the end of all processes."""
        pipes = [worker.pipe for worker in workers]
        sentinels = [worker.process.sentinel for worker in workers]
        ready = set(wait([*pipes, *sentinels], seconds))
        return [
            (worker, _reply(worker))
            for worker in workers
            if ready & {worker.pipe, worker.process.sentinel}
        ]

    def kill(self, worker: _Process) -> None:
        """Kill the process."""
        worker.pipe.close()
        worker.process.kill()
        worker.process.join()


def _reply(worker: _Process) -> Reply:
    """Read a reply; a process that was killed may have sent but the beginning."""
    with suppress(EOFError, OSError):
        if worker.pipe.poll():
            return read(worker.pipe.recv_bytes())
    worker.process.join(GRACE)
    worker.process.kill()
    worker.process.join()
    status = worker.process.exitcode or 0
    return Reply(death=signal.Signals(-status).name if status < 0 else f"exit status {status}")


def _serve(pipe: Connection, threads: int) -> None:
    """Run a worker process until its pipe closes."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdout = sys.stderr  # standard output is the driver's
    with suppress(OSError):
        os.dup2(2, 1)  # also for what is not Python
    with suppress(EOFError, OSError):  # the driver is gone
        started = attempt(pipe.recv().do, threads)
        pipe.send_bytes(write(Reply(error=started.error)))
        while started.error is None:
            pipe.send_bytes(write(attempt(started.value, pipe.recv())))


def die_with_parent() -> None:
    """End this worker process when its parent ends for any reason.

    On Linux the kernel kills this process; on other systems a thread waits for the parent.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent.pid:
            os._exit(1)
    else:
        threading.Thread(target=_follow, args=(parent.sentinel,), daemon=True).start()


def _follow(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
