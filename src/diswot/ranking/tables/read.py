"""Accuracy tables: architectures of a space, and what accuracies others reached by training them.

- CSV, also gzipped: columns named as the space's parameters; the other numbers are accuracies.
- CSV with a column `arch`: cells of NAS-Bench-201 in the benchmark's notation.
- CSV with columns `adjacency` (a matrix row after row) and `ops` (initials 3, 1, p of the inner
  vertices): cells of NAS-Bench-101, as exported with the benchmark's own package.
- JSON, a list or a line a row: `params`, or for `autoformer` `arch`, is a dict; the other numbers
  are accuracies.
- A folder of NATS-Bench: its files `000000.pickle.pbz2` and on.

Columns with the names of sizes (`params`, `macs`, `flops`, ...) are no accuracies. A column between
0 and 1 is of shares, and becomes percent. An empty cell is a missing accuracy.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from diswot.errors import UserError, unknown
from diswot.ranking.tables.nats import is_nats, read_nats
from diswot.ranking.tables.records import read_records
from diswot.ranking.tables.rows import Table, params_of, table_of

_TAUGHT = ("distilled_acc", "kd_acc")
_ALONE = {"distilled_acc": "vanilla_acc", "kd_acc": "base_acc"}


def read_table(path: str | Path, space: str) -> Table:
    """Read a table.

    Args:
        path: A file in one of the layouts above, or a folder of NATS-Bench.
        space: What the architectures are of: a key of `SPACES`, or `file.py:function`.

    Raises:
        UserError: There is no such file, it is damaged, or a row is no architecture of the space.
    """
    path = Path(path)
    if path.is_dir():
        if not is_nats(path):
            raise UserError(f"{path} is a folder, but none of NATS-Bench")
        return table_of(path.name, space, read_nats(path), params_of(space))
    return table_of(path.name, space, read_records(path), params_of(space))


def sample(table: Table, count: int, seed: int = 0) -> Table:
    """A random choice of rows, in the table's order; a larger one holds all of a smaller one."""
    order = np.random.default_rng(seed).permutation(len(table.rows))
    return replace(table, rows=tuple(table.rows[i] for i in sorted(order[:count])))


def target(columns: Iterable[str], name: str | None = None) -> str:
    """The accuracy asked for; without a name the first of distilled students, or the first.

    Raises:
        UserError: There is no such column, or none at all.
    """
    names = list(columns)
    if not names:
        raise UserError("the table has no column of accuracies")
    if name is None:
        return next((column for column in names if column.endswith(_TAUGHT)), names[0])
    if name not in names:
        raise unknown("target", name, names)
    return name


def vanilla(target: str, columns: Iterable[str]) -> str | None:
    """The column of the same students trained alone, if there is one."""
    for taught, alone in _ALONE.items():
        if target.endswith(taught) and (name := target.removesuffix(taught) + alone) in columns:
            return name
    return None
