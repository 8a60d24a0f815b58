"""What the command line shows: progress, tables, one JSON line, one-line errors."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

Advance = Callable[[int, int, str], None]


@contextmanager
def progress(title: str, *, quiet: bool) -> Iterator[Advance]:
    """A progress bar on standard error; silent when quiet or not on a terminal.

    Yields a function of the steps done, of all steps, and a note.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda done, total, note="": None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    ]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None, note="")
        yield lambda done, total, note="": bar.update(task, completed=done, total=total, note=note)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on standard output; all but the first column to the right."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    drawn = Table(title=escape(title), title_justify="left")
    for index, column in enumerate(columns):
        drawn.add_column(escape(column), justify="right" if index else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*map(escape, row))
    wide = Console() if sys.stdout.isatty() else Console(width=110)
    wide.print(drawn)


def show_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object on one line of standard output."""
    print(json.dumps(value), flush=True)


def note(text: str, *, quiet: bool = False) -> None:
    """Say something on standard error."""
    if not quiet:
        print(text, file=sys.stderr, flush=True)


def show_params(params: Mapping[str, Any]) -> str:
    """Write an architecture in a table's cell."""
    return " ".join(f"{name}={value}" for name, value in params.items())
