"""Progress of a long call on standard error: bars on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


INTERVAL = 20.0  # most seconds between two lines, where there is no terminal


class Advance(Protocol):
    """A function that moves the progress bar of a title."""

    def __call__(
        self, title: str, done: int, total: int, note: str = "", *, line: bool = False
    ) -> None:
        """Show that `done` of `total` steps are done, with a note behind the bar.

        Where there is no terminal, `line` gives the step a line of its own.
        """


@contextmanager
def shown_progress(*, quiet: bool = False) -> Iterator[Advance]:
    """Show progress on standard error until the block ends: bars on a terminal, lines elsewhere.

    Nothing is shown if `quiet`.
    """
    if quiet:
        yield lambda title, done, total, note="", *, line=False: None
    elif sys.stderr.isatty():
        with _bars() as bars:
            yield _advance_bars(bars)
    else:
        with _Lines() as lines:
            yield lines.advance


def _advance_bars(bars: Progress) -> Advance:
    tasks: dict[str, TaskID] = {}

    def advance(title: str, done: int, total: int, note: str = "", *, line: bool = False) -> None:
        if title not in tasks:
            tasks[title] = bars.add_task(title, total=total, note=note)
        bars.update(tasks[title], completed=done, total=total, note=note)

    return advance


class _Lines:
    """Progress in lines: one for each event that is worth it, and one at least each interval.

    A thread prints the line of an interval, so that a long step is no silence.
    """

    def __init__(self) -> None:
        self._text, self._start = "preparing", time.monotonic()
        self._printed, self._ended = self._start, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _Lines:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def advance(
        self, title: str, done: int, total: int, note: str = "", *, line: bool = False
    ) -> None:
        """Keep the state for the next line; print it now if it is worth a line."""
        self._text = f"{title} {done} of {total}" + (f": {note}" if note else "")
        if line:
            self._print(self._text)

    def _print(self, text: str) -> None:
        self._printed = time.monotonic()
        with suppress(OSError, ValueError):  # nobody reads standard error any more
            print(text, file=sys.stderr, flush=True)

    def _watch(self) -> None:
        while not self._ended.wait(max(0.0, self._printed + INTERVAL - time.monotonic())):
            now = time.monotonic()
            if now >= self._printed + INTERVAL:
                self._print(f"{self._text} ({now - self._start:.0f} s so far)")


def _bars() -> Progress:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=Console(stderr=True),
        transient=True,
    )
