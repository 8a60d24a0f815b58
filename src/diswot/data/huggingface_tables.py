"""Columns and splits of the tables of the library `datasets`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from diswot.data.boxes import train_and_test
from diswot.data.parquet import encoded_cells
from diswot.data.split_folders import split_of
from diswot.data.tabular import Fetch
from diswot.utils.optional_imports import imported

T = TypeVar("T")


def image_columns(table: Any) -> list[str]:
    """Return the names of the columns of images."""
    kind = imported("datasets", "hf").Image
    return [name for name, each in table.features.items() if isinstance(each, kind)]


def encoded_column(table: Any, column: str, name: str) -> Fetch:
    """Return a function of some rows that returns their encoded images, as bytes or paths."""
    encoded = imported("datasets", "hf").Image(decode=False)
    raw = table.select_columns([column]).cast_column(column, encoded)
    return partial(_fetch, raw, column, name)


def _fetch(table: Any, column: str, name: str, rows: Sequence[int]) -> list[bytes | str]:
    return encoded_cells(table[list(rows)][column], name, rows)


def known_splits(name: str, tables: Mapping[str, T], known: Iterable[str]) -> list[T]:
    """Return the training split, and the test split if there is one with known targets.

    Without a split `train` whose targets are known, the first split is for training.
    """
    named = {split: kind for split in known if (kind := split_of(split))}
    if "train" not in named.values():
        named[next(iter(tables))] = "train"
    return train_and_test(Path(name), {kind: tables[split] for split, kind in named.items()})
