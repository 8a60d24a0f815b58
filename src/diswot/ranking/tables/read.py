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

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from diswot.errors import UserError
from diswot.ranking.tables.conditions import select
from diswot.ranking.tables.nats import is_nats, read_nats
from diswot.ranking.tables.raw_rows import read_raw_rows
from diswot.ranking.tables.rows import AccuracyTable, make_table, row_reader


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
    """Draw at most `count` random rows of a table, in the table's order.

    Of two samples with one seed the larger contains the smaller.
    """
    order = np.random.default_rng(seed).permutation(len(table.rows))
    return replace(table, rows=tuple(table.rows[i] for i in sorted(order[:count])))
