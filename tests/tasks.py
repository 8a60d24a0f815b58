"""What the worker processes of tests do, and how a test gets tasks done.

Imports little, so that workers start quickly.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diswot.errors import UserError

if TYPE_CHECKING:
    from diswot.executors.protocol import Executor

Do = Callable[[Any], Any]


class Stubborn(Exception):
    """Can be pickled, but not unpickled."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


def made() -> Do:
    """Make a worker, which remembers its process."""
    return partial(work, os.getpid())


def unmade() -> Do:
    raise UserError("no such teacher")


def broken() -> Do:
    raise RuntimeError("no such\nteacher")


def dying() -> Do:
    os._exit(9)


def seldom(folder: str) -> Do:
    """Make the first worker and those from the sixth on; leaves a file each time."""
    before = len(list(Path(folder).iterdir()))
    Path(folder, str(before)).touch()
    if 1 <= before < 5:
        os._exit(9)
    return made()


def named(name: str) -> Do:
    """Make a worker whose results bear its name."""
    return partial(answer, name)


def answer(name: str, task: Any) -> tuple[str, Any]:
    time.sleep(0.05)  # so that a second worker gets some tasks
    return name, task


def work(pid: int, task: Any) -> Any:
    """Do what the task says, some of it once only, in the file of that name."""
    what, *rest = task
    if what == "add":
        return sum(rest)
    if what == "slow add":
        time.sleep(0.05)
        return sum(rest)
    if what == "who":
        assert os.getpid() == pid
        return pid
    if what == "kill once":
        path = Path(rest[0])
        if path.exists():
            return "survived"
        path.touch()
        what = "kill"
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "exit":
        os._exit(rest[0])
    if what == "raise":
        raise rest[0]
    if what == "stubborn":
        raise Stubborn("a", "b")
    if what == "return":
        return {"lambda": lambda: 3, "stubborn": Stubborn("a", "b")}[rest[0]]
    if what == "print":
        print("from Python", flush=True)
        os.write(1, b"from elsewhere\n")
        return os.environ["OMP_NUM_THREADS"], "torch" in sys.modules
    time.sleep(60)
    return None


def results(executor: Executor, tasks: dict[str, Any]) -> dict[Any, Any]:
    """Return the value of each task, in the order of names; `(failure, reason)` if it failed."""
    for name, task in tasks.items():
        executor.submit(name, task)
    found: dict[Any, Any] = {}
    while len(found) < len(tasks):
        for result in executor.wait():
            assert result.key not in found
            failed = (result.failure, result.reason)
            found[result.key] = failed if result.failure else result.value
    return {name: found[name] for name in tasks}
