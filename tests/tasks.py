"""What the worker processes of tests make and do, and how a test gets it done.

Imports little, so that they start quickly.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diswot.errors import UserError

if TYPE_CHECKING:
    from diswot.executors.pool import Pool


def made() -> int:
    """What a worker makes: its process."""
    return os.getpid()


def unmade() -> int:
    raise UserError("no such teacher")


def broken() -> int:
    raise RuntimeError("no such\nteacher")


def dying() -> int:
    os._exit(9)


def seldom(folder: str) -> int:
    """Can be made the first and the sixth time, and after; leaves a file each time."""
    before = len(list(Path(folder).iterdir()))
    Path(folder, str(before)).touch()
    if 1 <= before < 5:
        os._exit(9)
    return os.getpid()


def work(held: int, task: Any, ask: Callable[[Any], Any]) -> Any:
    """Does what the task says, some of it once only, in the file of that name."""
    what, *rest = task
    if what == "add":
        return sum(rest)
    if what == "ask":
        return [ask(question) for question in rest]
    if what == "who":
        assert os.getpid() == held
        return held
    if what == "kill once":
        path = Path(rest[0])
        if path.exists():
            return "survived"
        path.touch()
        what = "kill"
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "exit":
        os._exit(3)
    if what == "raise":
        raise RuntimeError("a mistake of ours")
    time.sleep(60)
    return None


def results(crew: Pool, tasks: dict[str, Any], answer: Any = None) -> dict[Any, Any]:
    """Of all tasks, in the order of their names; `(kind, reason)` of one that failed."""
    for name, task in tasks.items():
        crew.put(name, task)
    found: dict[Any, Any] = {}
    while crew.busy:
        for outcome in crew.wait(answer or (lambda key, question: None)):
            failed = (outcome.kind, outcome.reason)
            found[outcome.key] = failed if outcome.kind else outcome.result
    return {name: found[name] for name in tasks}
