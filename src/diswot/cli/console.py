"""Output of the command line: progress bars, tables, notes, one JSON object."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Advance(Protocol):
    """A function that moves the progress bar of a title."""

    def __call__(self, title: str, done: int, total: int, note: str = "") -> None:
        """Show that `done` of `total` steps are done, with a note behind the bar."""


@contextmanager
def progress(*, quiet: bool) -> Iterator[Advance]:
    """Show progress bars on standard error, except when quiet or not on a terminal.

    Standard output is for the result, so that what a user's own code prints meanwhile goes to
    standard error as well.
    """
    with redirect_stdout(sys.stderr):
        if quiet or not sys.stderr.isatty():
            yield lambda title, done, total, note="": None
            return
        with _bars() as bars:
            tasks: dict[str, TaskID] = {}

            def advance(title: str, done: int, total: int, note: str = "") -> None:
                if title not in tasks:
                    tasks[title] = bars.add_task(title, total=total, note=note)
                bars.update(tasks[title], completed=done, total=total, note=note)

            yield advance


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


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, text: int = 1
) -> None:
    """Print a table on standard output, with the first `text` columns aligned left."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    drawn = Table()
    for index, column in enumerate(columns):
        left = index < text
        drawn.add_column(escape(column), justify="left" if left else "right", overflow="fold")
    for row in rows:
        drawn.add_row(*map(escape, row))
    wide = Console() if sys.stdout.isatty() else Console(width=110)
    wide.print(title, style="table.title", markup=False, highlight=False, soft_wrap=True)
    wide.print(drawn)


def show_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object on one line; what is not finite becomes null."""
    print(json.dumps(finite(value), allow_nan=False), flush=True)


def finite(value: Any) -> Any:
    """Return a value with None for numbers that are not finite, which JSON cannot hold."""
    if isinstance(value, Mapping):
        return {name: finite(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def line(text: str) -> None:
    """Print a line of the result on standard output, without control characters."""
    print("".join(each if each.isprintable() else "?" for each in text), flush=True)


def note(text: str, *, quiet: bool = False) -> None:
    """Print a note on standard error, unless quiet."""
    if not quiet:
        print(text, file=sys.stderr, flush=True)


def show_params(params: Mapping[str, Any]) -> str:
    """Return an architecture as the text of a table's cell."""
    return " ".join(f"{name}={value}" for name, value in params.items())
