"""Output of the command line: progress bars or lines, tables, notes, one JSON object."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any, Literal

from diswot.utils.agreement import finite
from diswot.utils.progress import Advance, shown_progress

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

NOT_KEPT = "not kept: --no-out was given"


@contextmanager
def progress(*, quiet: bool) -> Iterator[Advance]:
    """Show progress on standard error, unless quiet: bars on a terminal, lines elsewhere.

    Standard output is for the result, so that what a user's own code prints meanwhile goes to
    standard error as well.
    """
    with redirect_stdout(sys.stderr), shown_progress(quiet=quiet) as advance:
        yield advance


def table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, text: int = 1
) -> None:
    """Print a table on standard output, with the first `text` columns aligned left.

    No word is broken: a table that is too wide for the terminal becomes a paragraph for each row.
    """
    from rich.console import Console

    wide = Console() if sys.stdout.isatty() else Console(width=110)
    wide.print(title, style="table.title", markup=False, highlight=False, soft_wrap=True)
    least = [
        _least(column, [row[place] for row in rows], text=place < text)
        for place, column in enumerate(columns)
    ]
    if sum(least) + 3 * len(least) + 1 > wide.width:
        _print_paragraphs(wide, columns, rows)
    else:
        wide.print(_grid(columns, rows, least, text))


def _least(column: str, cells: Sequence[str], *, text: bool) -> int:
    """Return the least width of a column: its longest word, or line if it holds numbers."""
    parts = [part for cell in cells for part in (cell.split() if text else cell.splitlines())]
    return max(map(len, [*column.split(), *parts]), default=0)


def _grid(
    columns: Sequence[str], rows: Sequence[Sequence[str]], least: Sequence[int], text: int
) -> Table:
    from rich.markup import escape
    from rich.table import Table

    drawn = Table()
    for place, column in enumerate(columns):
        side: Literal["left", "right"] = "left" if place < text else "right"
        drawn.add_column(escape(column), justify=side, overflow="fold", min_width=least[place])
    for row in rows:
        drawn.add_row(*map(escape, row))
    return drawn


def _print_paragraphs(wide: Console, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print the first cell of each row on a line, and under it a line for each other column."""
    for first, *others in rows:
        lines = [first or "-"]
        named = zip(columns[1:], others, strict=True)
        lines += [f"  {name}: {' '.join(cell.split())}" for name, cell in named if cell]
        for each in lines:
            text = textwrap.fill(
                each,
                wide.width,
                subsequent_indent="    ",
                break_on_hyphens=False,
                break_long_words=False,
            )
            wide.print(text, markup=False, highlight=False, soft_wrap=True)


def show_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object on one line; what is not finite becomes null."""
    print(json.dumps(finite(value), allow_nan=False), flush=True)


def line(text: str) -> None:
    """Print a line of the result on standard output, without control characters."""
    print("".join(each if each.isprintable() else "?" for each in text), flush=True)


def note(*texts: str, quiet: bool = False) -> None:
    """Print notes on standard error, a line each, unless quiet."""
    for text in () if quiet else texts:
        print(text, file=sys.stderr, flush=True)
