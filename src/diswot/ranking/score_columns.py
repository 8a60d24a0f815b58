"""Scores and accuracies of a table as columns, and their CSV file."""

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
from diswot.ranking.tables.rows import AccuracyTable
from diswot.spaces.registry import Params
from diswot.utils import files
from diswot.utils.user_code import is_spec

_ERROR = "_se"
_FIRST = ("name", "architecture")


@dataclass(frozen=True)
class ScoreColumns:
    """Scores and accuracies of N architectures, as columns of N values.

    Attributes:
        names: Names of the architectures.
        architectures: Parameters of the architectures.
        accuracies: Accuracies in percent by target; NaN is a missing accuracy.
        scores: Scores by proxy; minus infinity is the lowest score, NaN a missing score.
        errors: Standard errors over repeats by proxy; NaN is a missing error.
    """

    names: tuple[str, ...]
    architectures: tuple[Params, ...]
    accuracies: dict[str, list[float]]
    scores: dict[str, list[float]]
    errors: dict[str, list[float]]


def score_columns(
    table: AccuracyTable, scores: Mapping[str, Scores], proxies: Sequence[str]
) -> ScoreColumns:
    """Join a table with the scores of its architectures."""
    found = [scores[row.name] for row in table.rows]
    return ScoreColumns(
        tuple(row.name for row in table.rows),
        tuple(row.params for row in table.rows),
        table.accuracies,
        {proxy: [one.mean(proxy) for one in found] for proxy in proxies},
        {proxy: [one.error(proxy) for one in found] for proxy in proxies},
    )


def write_score_columns(path: Path, columns: ScoreColumns) -> None:
    """Write a CSV file: name, architecture, accuracies, scores and their standard errors.

    The architecture is JSON; a missing value is an empty cell.
    """
    errors = {f"{proxy}{_ERROR}": column for proxy, column in columns.errors.items()}
    numbers = {**columns.accuracies, **columns.scores, **errors}
    architectures = map(json.dumps, columns.architectures)
    rows = zip(columns.names, architectures, *numbers.values(), strict=True)

    def save(temporary: str) -> None:
        with open(temporary, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*_FIRST, *numbers])
            for name, architecture, *values in rows:
                cells = ("" if math.isnan(value) else repr(float(value)) for value in values)
                writer.writerow([name, architecture, *cells])

    files.write(path, save)


def read_score_columns(path: Path) -> ScoreColumns:
    """Read a file that `write_score_columns` wrote.

    Columns with the name of a proxy or of a user's function are scores, columns of standard errors
    end in `_se`, all others are accuracies.

    Raises:
        UserError: The file cannot be read, or has another form.
    """
    try:
        with path.open(newline="") as file:
            header, *rows = csv.reader(file, strict=True)
        if tuple(header[:2]) != _FIRST or {len(row) for row in rows} != {len(header)}:
            raise ValueError("other columns")
        names, architectures, *cells = zip(*rows, strict=True)
        values = [[float(cell) if cell else math.nan for cell in column] for column in cells]
        params = tuple(json.loads(text) for text in architectures)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path} is not a file of scores that diswot rank wrote") from error
    columns = dict(zip(header[2:], values, strict=True))
    scores = [name for name in columns if name in PROXIES or is_spec(name)]
    errors = {f"{name}{_ERROR}": name for name in scores if f"{name}{_ERROR}" in columns}
    return ScoreColumns(
        tuple(names),
        params,
        {k: v for k, v in columns.items() if k not in scores and k not in errors},
        {k: v for k, v in columns.items() if k in scores and k not in errors},
        {errors[k]: v for k, v in columns.items() if k in errors},
    )
