"""What a driver and its workers talk over, whatever carries their messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

Message = tuple[str, Any]


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


class Channel(Protocol):
    """A worker's end."""

    def send(self, message: Message) -> None:
        """Send a message."""

    def recv(self) -> Message:
        """Wait for one."""
