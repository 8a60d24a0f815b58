"""Parquet files of images and labels, as the Hugging Face hub publishes them.

An image is the bytes of an image file, alone or in a struct with a path. Of the image column, only
the row groups that hold a requested row are read.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from diswot.data.boxes import train_and_test
from diswot.data.dataset import Dataset
from diswot.data.split_folders import split_of
from diswot.data.tabular import ImageTable, image_column, label_column, labelled
from diswot.errors import UserError, first_line
from diswot.utils.optional_imports import imported


def is_parquet(path: Path) -> bool:
    """Say whether a path is a Parquet file, or a folder with Parquet files in it or in `data`."""
    return path.suffix == ".parquet" or bool(_files(path))


def parquet(name: str, *, img_size: int | None) -> Dataset:
    """Return the images of a Parquet file, or of a folder with files of splits.

    `split_of` tells their splits by their names. Without test files, those of `val` are for
    testing; without these, a stratified 20 % is held out.

    Raises:
        UserError: A file is damaged, or has no columns of images and labels.
    """
    path = Path(name)
    files = [path] if path.is_file() else _files(path)
    splits: dict[str, list[Path]] = {}
    for file in files:
        splits.setdefault(split_of(file.stem) or "", []).append(file)
    parts = train_and_test(path, splits) if "train" in splits else [files]
    return labelled(name, [_image_table(part) for part in parts], img_size)


def _files(path: Path) -> list[Path]:
    return sorted(path.glob("*.parquet")) or sorted(path.glob("data/*.parquet"))


def _image_table(paths: list[Path]) -> ImageTable:
    pq, name = imported("pyarrow.parquet", "parquet"), str(paths[0])
    try:
        files = [pq.ParquetFile(path) for path in paths]
        schemas = [file.schema_arrow for file in files]
        columns = [_columns(s, str(path)) for s, path in zip(schemas, paths, strict=True)]
        if len(set(columns)) > 1:
            raise UserError(f"{paths[0].parent}: the files differ in columns or classes")
        image, label, classes = columns[0]
        read = [file.read(columns=[label]).column(label).to_pylist() for file in files]
    except UserError:
        raise
    except Exception as error:  # a damaged file makes pyarrow raise anything
        raise UserError(f"{name} cannot be read as Parquet: {first_line(error)}") from error
    labels = [value for part in read for value in part]
    return ImageTable(name, labels, classes, partial(_fetch, _Groups(files, image), name))


def _columns(schema: Any, name: str) -> tuple[str, str, tuple[str, ...] | None]:
    """Return the columns of images and labels, and the classes if the file lists them."""
    facts = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = facts.get("info", {}).get("features", {})
    kinds = {field.name: str(field.type) for field in schema}
    binary = [n for n, kind in kinds.items() if "binary" in kind and not kind.startswith("list")]
    if "objects" in kinds:
        raise UserError(f"{name} has boxes; write hf: before its folder to read them")
    classed = {n: f["names"] for n, f in features.items() if isinstance(f, dict) and f.get("names")}
    image = image_column(list(kinds), binary, name)
    label = label_column(list(kinds), list(classed), name)
    return image, label, tuple(classed[label]) if label in classed else None


class _Groups:
    """The image column of some files, read by row groups; the last row group is cached."""

    def __init__(self, files: Sequence[Any], column: str) -> None:
        self.files, self.column = files, column
        places = [(f, g) for f, file in enumerate(files) for g in range(file.num_row_groups)]
        sizes = [files[f].metadata.row_group(g).num_rows for f, g in places]
        self.places, self.ends = places, np.cumsum(sizes)
        self.starts = self.ends - sizes
        self.read = lru_cache(maxsize=1)(self._read)

    def _read(self, group: int) -> Any:
        file, within = self.places[group]
        return self.files[file].read_row_group(within, columns=[self.column]).column(0)

    def rows(self, wanted: Sequence[int]) -> list[Any]:
        """Return the cells of some rows, numbered through all files."""
        groups = np.searchsorted(self.ends, wanted, side="right")
        found: list[Any] = [None] * len(wanted)
        for group in np.unique(groups):
            cells = self.read(int(group))
            for place in np.flatnonzero(groups == group):
                found[place] = cells[int(wanted[int(place)] - self.starts[group])].as_py()
        return found


def _fetch(groups: _Groups, name: str, rows: Sequence[int]) -> list[bytes | str]:
    try:
        found = groups.rows(rows)
    except Exception as error:  # a damaged file makes pyarrow raise anything
        raise UserError(f"{name} cannot be read as Parquet: {first_line(error)}") from error
    return encoded_cells(found, name, rows)


def encoded_cells(cells: Sequence[Any], name: str, rows: Sequence[int]) -> list[bytes | str]:
    """Return the encoded images in cells of some rows of a table, as bytes or paths of files."""
    return [_encoded(cell, f"row {row} of {name}") for row, cell in zip(rows, cells, strict=True)]


def _encoded(value: Any, name: str) -> bytes | str:
    """Return the bytes of an image file in a cell, or else its path."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if not isinstance(value, bytes | str) or not value:
        raise UserError(f"{name} holds no image")
    return value
