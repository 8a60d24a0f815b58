"""Accuracy tables: architectures of a space with the accuracies of trained networks.

- CSV, also gzipped: a column for each parameter of the space; other numeric columns are accuracies.
- CSV with a column in the notation of a published benchmark (`notations.NOTATIONS`), such as `arch`
  for the cells of NAS-Bench-201.
- CSV with columns `adjacency` (a matrix, row by row) and `ops` (initials 3, 1, p of the inner
  vertices): cells of NAS-Bench-101, as exported with the benchmark's own package.
- JSON, a list or one line per row: `params` is a dict of parameters; for `autoformer` and `pit`,
  `arch` is a dict in the notation of Auto-Prox. Other numbers are accuracies.
- CSV with a column `model`: networks of timm, for the space `timm_zoo`. The columns `tag` and
  `img_size` are part of the name, as a network is there once for each recipe and size.
- A folder of NATS-Bench with the files `000000.pickle.pbz2`, `000001.pickle.pbz2`, ...

Columns with names such as `params`, `macs`, `id`, `seed` or `epoch` are not accuracies. A column
with all values between 0 and 1 is read as shares and converted to percent. Errors and losses are
turned round (`targets`). An empty cell is a missing accuracy, and so is a value that cannot be one.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from diswot.errors import UserError, unknown
from diswot.ranking.tables.nats import is_nats, read_nats
from diswot.ranking.tables.notations import number
from diswot.ranking.tables.raw_rows import RawRow, read_raw_rows
from diswot.ranking.tables.rows import AccuracyTable, make_table

_FORM = re.compile(r"\s*([^<>=]+?)\s*(<=|>=|<|>|=)\s*(.*?)\s*", re.DOTALL)
_ORDER: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def read_table(path: str | Path, space: str, where: Iterable[str] = ()) -> AccuracyTable:
    """Read a table.

    Args:
        path: File or folder in one of the layouts of this module.
        space: Space of the architectures: a key of `SPACES`, or `file.py:function`.
        where: Conditions of the rows that are read; see `select`. Default: all rows.

    Raises:
        UserError: The file does not exist or is damaged, a row is not an architecture of the space,
            or no row meets the conditions.
    """
    path = Path(path)
    if path.is_dir() and not is_nats(path):
        raise UserError(f"{path} is a folder without files of NATS-Bench")
    rows = select(read_nats(path) if path.is_dir() else read_raw_rows(path), where)
    return make_table(path.name, space, rows)


def select(rows: Sequence[RawRow], conditions: Iterable[str]) -> list[RawRow]:
    """Return the rows that meet all conditions.

    Args:
        rows: Cells by column.
        conditions: Each a column, one of `=`, `<`, `<=`, `>`, `>=`, and a value. After `=` stand
            shell patterns, separated by commas, of which one must match. A cell that is no number
            is neither less nor greater.

    Raises:
        UserError: A condition has another form, its column does not exist, or no row meets it.
    """
    left = list(rows)
    for condition in conditions:
        column, test = _parse(condition)
        if not any(column in row for row in rows):
            raise unknown("column", column, dict.fromkeys(name for row in rows for name in row))
        left = [row for row in left if test(row.get(column))]
        if not left:
            raise UserError(f"no row is left with {condition}")
    return left


def _parse(condition: str) -> tuple[str, Callable[[object], bool]]:
    """Return the column of a condition, and the function that tests a cell."""
    form = _FORM.fullmatch(condition)
    if form is None:
        raise UserError(f"a condition is such as tag=in1k or params_m<13, not {condition!r}")
    column, sign, value = form.groups()
    if sign == "=":
        patterns = [pattern.strip() for pattern in value.split(",")]
        return column, lambda cell: any(fnmatchcase(str(cell), each) for each in patterns)
    limit = number(value)
    if limit is None or math.isnan(limit):
        raise UserError(f"{condition!r} compares with {value!r}, which is no number")
    return column, lambda cell: (found := number(cell)) is not None and _ORDER[sign](found, limit)


def sample(table: AccuracyTable, count: int, seed: int = 0) -> AccuracyTable:
    """Draw at most `count` random rows of a table, in the table's order.

    Of two samples with one seed the larger contains the smaller.
    """
    order = np.random.default_rng(seed).permutation(len(table.rows))
    return replace(table, rows=tuple(table.rows[i] for i in sorted(order[:count])))
