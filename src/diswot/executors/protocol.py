"""Interface of an executor and the result of a task."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Protocol

Do = Callable[[Any], Any]
Make = Callable[[], Do]

KILLED, TIMEOUT = "killed", "timeout"


@dataclass(frozen=True)
class TaskResult:
    """The end of a task: one message back for one message out.

    Attributes:
        key: Key of the task, as submitted.
        value: What the task returned; None if it failed.
        failure: `killed` if its worker died each time, `timeout` if it took too long, else empty.
        reason: One line on the failure.
    """

    key: Hashable
    value: Any = None
    failure: str = ""
    reason: str = ""


class Executor(Protocol):
    """Runner of tasks, in this process or in others."""

    @property
    def room(self) -> int:
        """Number of tasks that free workers would begin at once."""

    def submit(self, key: Hashable, task: Any) -> None:
        """Hand over a task.

        Args:
            key: Name of the task in its result.
            task: Argument of the function that does tasks.
        """

    def wait(self, seconds: float | None = None) -> list[TaskResult]:
        """Wait until tasks end, a worker becomes free, or the seconds have passed.

        Args:
            seconds: Longest time to wait; without a limit by default, but not without a task.

        Raises:
            UserError, SearchFailed: A worker cannot be made, or the function raised.
        """
