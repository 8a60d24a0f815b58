"""Scores and accuracies of a table side by side, as one CSV line an architecture."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from diswot.errors import UserError
from diswot.proxies.registry import PROXIES
from diswot.ranking.score_table import Scores
from diswot.ranking.tables.rows import Table
from diswot.spaces.registry import Params
from diswot.utils import files

_ERROR = "_se"
_FIRST = ("name", "architecture")


@dataclass(frozen=True)
class Sheet:
    """Columns of N values each.

    Attributes:
        names: Of the architectures.
        architectures: Their parameters.
        accuracies: By target, in percent; NaN is missing.
        scores: By proxy; minus infinity is the lowest, NaN is none.
        errors: By proxy, the standard error over repeats; NaN where there is none.
    """

    names: tuple[str, ...]
    architectures: tuple[Params, ...]
    accuracies: dict[str, list[float]]
    scores: dict[str, list[float]]
    errors: dict[str, list[float]]


def sheet(table: Table, scores: Mapping[str, Scores], proxies: Sequence[str]) -> Sheet:
    """What is known of the rows of a table."""
    found = [scores[row.name] for row in table.rows]
    errors = {proxy: [one.error(proxy) for one in found] for proxy in proxies}
    return Sheet(
        tuple(row.name for row in table.rows),
        tuple(row.params for row in table.rows),
        {name: [row.accuracies[name] for row in table.rows] for name in table.targets},
        {proxy: [one.mean(proxy) for one in found] for proxy in proxies},
        {p: [math.nan if e is None else e for e in column] for p, column in errors.items()},
    )


def write(path: Path, sheet: Sheet) -> None:
    """Write the columns name, architecture, accuracies, scores and their standard errors.

    The architecture is JSON; missing values are empty.
    """
    errors = {f"{proxy}{_ERROR}": column for proxy, column in sheet.errors.items()}
    columns = {**sheet.accuracies, **sheet.scores, **errors}
    rows = zip(sheet.names, map(json.dumps, sheet.architectures), *columns.values(), strict=True)

    def save(temporary: str) -> None:
        with open(temporary, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*_FIRST, *columns])
            writer.writerows([*row[:2], *map(_cell, row[2:])] for row in rows)

    files.write(path, save)


def read(path: Path) -> Sheet:
    """Read it back; columns named as a proxy are scores, other ones accuracies.

    Raises:
        UserError: The file is not one of these.
    """
    try:
        with path.open(newline="") as file:
            header, *rows = csv.reader(file, strict=True)
        if tuple(header[:2]) != _FIRST or {len(row) for row in rows} != {len(header)}:
            raise ValueError("other columns")
        names, architectures, *cells = zip(*rows, strict=True)
        values = [[_number(cell) for cell in column] for column in cells]
        params = tuple(json.loads(text) for text in architectures)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path} is no file of scores that diswot rank wrote") from error
    columns = dict(zip(header[2:], values, strict=True))
    errors = {f"{proxy}{_ERROR}": proxy for proxy in PROXIES}
    return Sheet(
        tuple(names),
        params,
        {k: v for k, v in columns.items() if k not in PROXIES and k not in errors},
        {k: v for k, v in columns.items() if k in PROXIES},
        {errors[k]: v for k, v in columns.items() if k in errors},
    )


def _cell(value: float) -> str:
    return "" if math.isnan(value) else repr(float(value))


def _number(cell: str) -> float:
    return float(cell) if cell else math.nan
