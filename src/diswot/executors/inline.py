"""Tasks done in this process, one at a time."""

from __future__ import annotations

import time
from collections.abc import Hashable
from typing import Any

from diswot.executors.protocol import Do, TaskResult


class Inline:
    """Executor that does a task in this process when its result is waited for.

    What a task raises reaches the caller of `wait`.
    """

    def __init__(self, do: Do) -> None:
        self._do = do
        self._tasks: list[tuple[Hashable, Any]] = []

    @property
    def room(self) -> int:
        """One, unless a task waits."""
        return int(not self._tasks)

    def submit(self, key: Hashable, task: Any) -> None:
        """Keep a task for `wait`; there is no time limit here."""
        self._tasks.append((key, task))

    def wait(self, seconds: float | None = None) -> list[TaskResult]:
        """Do the oldest task; without one, sleep for the seconds."""
        if not self._tasks:
            time.sleep(seconds or 0)
            return []
        key, task = self._tasks.pop(0)
        return [TaskResult(key, self._do(task))]
