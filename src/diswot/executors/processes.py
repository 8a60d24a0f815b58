"""Workers that are processes of this machine, with a pipe each."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from diswot.executors.packed import Packed
from diswot.executors.protocol import Message
from diswot.executors.talk import talk
from diswot.utils.lifetime import die_with_parent

GRACE = 10  # seconds for a process to end that has closed its pipe


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
