"""Data sets of the Hugging Face hub with boxes, through the library `datasets`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diswot.data.box_tables import BOX, CATEGORIES, BoxTable, box_data
from diswot.data.dataset import Dataset
from diswot.data.huggingface_tables import encoded_column, image_columns, known_splits
from diswot.data.tabular import image_column
from diswot.errors import UserError
from diswot.utils.optional_imports import imported

_SIDES = ("width", "height")


def has_boxes(table: Any) -> bool:
    """Say whether a table of `datasets` has a column of boxes."""
    return _column(table) is not None


def hub_boxes(name: str, splits: Mapping[str, Any], img_size: int | None) -> Dataset:
    """Return the tables of splits as a data set for detection.

    A column such as `objects` holds `bbox`, as x, y, width and height in pixels, and `category`.
    The split `test` is for testing if its boxes are known, or else `validation`. Without these, or
    with one split alone, a random 20 % are held out.

    Raises:
        UserError: A table has no images, or its boxes have no categories.
    """
    tables = {split: _table(each, f"{name}:{split}") for split, each in splits.items()}
    known = [split for split, table in tables.items() if any(map(_has_objects, table.objects))]
    return box_data(name, known_splits(name, tables, known), img_size)


def _column(table: Any) -> str | None:
    """Return the name of the first column that holds `bbox`, `objects` before all others."""
    names = sorted(table.features, key=lambda name: name != "objects")
    return next((name for name in names if BOX in _fields(table.features[name])), None)


def _has_objects(cell: Any) -> bool:
    """Say whether a row has a box; its cell is a mapping of lists, a list of mappings, or None."""
    return bool(cell.get(BOX) if isinstance(cell, Mapping) else cell)


def _fields(kind: Any) -> Mapping[str, Any]:
    """Return the fields of a column that is a mapping of lists, or a list of mappings."""
    kind = getattr(kind, "feature", kind)
    return kind if isinstance(kind, dict) else {}


def _table(table: Any, name: str) -> BoxTable:
    datasets, column = imported("datasets", "hf"), _column(table)
    if column is None:
        raise UserError(f"{name} has no column with bbox")
    image = image_column(list(table.features), image_columns(table), name)
    fields = _fields(table.features[column])
    label = next((fields[key] for key in CATEGORIES if key in fields), None)
    label = getattr(label, "feature", label)
    classes = tuple(label.names) if isinstance(label, datasets.ClassLabel) else None
    plain = table.select_columns([n for n in table.features if n != image]).with_format("arrow")
    objects, fetch = plain[column][:].to_pylist(), encoded_column(table, image, name)
    return BoxTable(name, objects, classes, _sizes(plain), fetch)


def _sizes(table: Any) -> list[tuple[int, int]] | None:
    """Return the columns of width and height; None if they are not there."""
    if not {*_SIDES} <= {*table.features}:
        return None
    columns = [table[side][:].to_pylist() for side in _SIDES]
    whole = all(isinstance(value, int) and value > 0 for column in columns for value in column)
    return list(zip(*columns, strict=True)) if whole else None
