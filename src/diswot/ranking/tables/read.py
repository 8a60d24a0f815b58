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

Columns whose names start like sizes (`params`, `macs`, `flops`, ...) are not accuracies. A column
with all values between 0 and 1 is read as shares and converted to percent. An empty cell is a
missing accuracy.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from diswot.errors import UserError, unknown
from diswot.ranking.tables.conditions import select
from diswot.ranking.tables.nats import is_nats, read_nats
from diswot.ranking.tables.raw_rows import read_raw_rows
from diswot.ranking.tables.rows import AccuracyTable, make_table, row_reader

# Ending of a column of distilled students, and of the column of the same students trained alone.
_VANILLA = {"distilled_acc": "vanilla_acc", "kd_acc": "base_acc"}


def read_table(path: str | Path, space: str, where: Iterable[str] = ()) -> AccuracyTable:
    """Read a table.

    Args:
        path: File or folder in one of the layouts of this module.
        space: Space of the architectures: a key of `SPACES`, or `file.py:function`.
        where: Conditions of the rows that are read; see `conditions.select`. Default: all rows.

    Raises:
        UserError: The file does not exist or is damaged, a row is not an architecture of the space,
            or no row meets the conditions.
    """
    path = Path(path)
    if path.is_dir() and not is_nats(path):
        raise UserError(f"{path} is a folder without files of NATS-Bench")
    rows = select(read_nats(path) if path.is_dir() else read_raw_rows(path), where)
    return make_table(path.name, space, rows, row_reader(space))


def sample(table: AccuracyTable, count: int, seed: int = 0) -> AccuracyTable:
    """Draw random rows of a table, in the table's order.

    Args:
        table: The table.
        count: Number of rows, at most.
        seed: Seed of the draw. Of two samples with one seed the larger contains the smaller.
    """
    order = np.random.default_rng(seed).permutation(len(table.rows))
    return replace(table, rows=tuple(table.rows[i] for i in sorted(order[:count])))


def choose_target(columns: Iterable[str], name: str | None = None) -> str:
    """Return the column of accuracies to predict.

    Args:
        columns: Columns of accuracies.
        name: The column; by default the first column of distilled students, or else the first.

    Raises:
        UserError: The column does not exist, or the table has none.
    """
    names = list(columns)
    if not names:
        raise UserError("the table has no column of accuracies")
    if name is None:
        return next((column for column in names if column.endswith(tuple(_VANILLA))), names[0])
    if name not in names:
        raise unknown("target", name, names)
    return name


def vanilla_column(target: str, columns: Iterable[str]) -> str | None:
    """Return the column of the same students trained alone, or None.

    Args:
        target: Column of distilled students.
        columns: All columns of accuracies.
    """
    for distilled, alone in _VANILLA.items():
        name = target.removesuffix(distilled) + alone
        if target.endswith(distilled) and name in columns:
            return name
    return None
