"""Data sets of the Hugging Face hub with boxes, through the library `datasets`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from diswot.data.boxes import BoxedImages, array, boxed, corners
from diswot.data.dataset import Dataset
from diswot.data.decode import opened, size_of
from diswot.data.huggingface_tables import encoded_column, image_columns, known_splits
from diswot.data.tabular import Fetch, image_column
from diswot.errors import UserError
from diswot.utils.optional_imports import imported

_BOX = "bbox"
_CATEGORIES = ("category", "category_id", "categories", "label", "labels", "class")
_CROWDS = ("iscrowd", "is_crowd", "crowd")
_SIDES = ("width", "height")
_READ = 100  # images that are read at once for their sizes


class _Object(NamedTuple):
    box: tuple[float, ...]
    category: Any  # int or str
    crowd: bool


@dataclass(frozen=True)
class _BoxTable:
    """A table of images with boxes.

    Attributes:
        name: Name of the table in an error.
        cells: Objects of each row: a mapping of lists, or a list of mappings, with `bbox` and one
            of `_CATEGORIES`; None without objects.
        classes: Names of the classes; None if the table does not list them.
        sizes: Width and height of each image; None to read them from the images.
        fetch: Function that returns the encoded images of some rows, as bytes or paths of files.
    """

    name: str
    cells: Sequence[Any]
    classes: tuple[str, ...] | None
    sizes: Sequence[tuple[int, int]] | None
    fetch: Fetch


def has_boxes(table: Any) -> bool:
    """Say whether a table of `datasets` has a column of boxes."""
    return _column(table) is not None


def hub_boxes(name: str, splits: Mapping[str, Any], img_size: int | None) -> Dataset:
    """Return the tables of splits as a data set for detection.

    A column such as `objects` holds `bbox`, as x, y, width and height in pixels, and `category`.
    Classes are as listed, or else the categories that occur, sorted. The split `test` is for
    testing if its boxes are known, or else `validation`. Without these, or with one split alone, a
    random 20 % are held out. The rest is as in `boxed`.

    Raises:
        UserError: A table has no images, a box has no category, or the tables list different
            classes.
    """
    named = {split: _table(each, f"{name}:{split}") for split, each in splits.items()}
    known = [split for split, table in named.items() if any(map(_has_objects, table.cells))]
    tables = known_splits(name, named, known)
    if len({table.classes for table in tables}) > 1:
        raise UserError(f"{name}: the training and test tables list different classes")
    rows = [[_objects(table, row) for row in range(len(table.cells))] for table in tables]
    objects = [each for table in rows for row in table for each in row]
    classes = tables[0].classes or _categories(name, objects)
    parts = [_part(*each, classes) for each in zip(tables, rows, strict=True)]
    return boxed(name, classes, parts, img_size)


def _column(table: Any) -> str | None:
    """Return the name of the first column that holds `bbox`, `objects` before all others."""
    names = sorted(table.features, key=lambda name: name != "objects")
    return next((name for name in names if _BOX in _fields(table.features[name])), None)


def _fields(kind: Any) -> Mapping[str, Any]:
    """Return the fields of a column that is a mapping of lists, or a list of mappings."""
    kind = getattr(kind, "feature", kind)
    return kind if isinstance(kind, dict) else {}


def _table(table: Any, name: str) -> _BoxTable:
    datasets, column = imported("datasets", "hf"), _column(table)
    if column is None:
        raise UserError(f"{name} has no column with bbox")
    image = image_column(list(table.features), image_columns(table), name)
    fields = _fields(table.features[column])
    label = next((fields[key] for key in _CATEGORIES if key in fields), None)
    label = getattr(label, "feature", label)
    classes = tuple(label.names) if isinstance(label, datasets.ClassLabel) else None
    plain = table.select_columns([n for n in table.features if n != image]).with_format("arrow")
    cells, fetch = plain[column][:].to_pylist(), encoded_column(table, image, name)
    return _BoxTable(name, cells, classes, _listed_sizes(plain), fetch)


def _listed_sizes(table: Any) -> list[tuple[int, int]] | None:
    """Return the columns of width and height; None if they are not there."""
    if not {*_SIDES} <= {*table.features}:
        return None
    columns = [table[side][:].to_pylist() for side in _SIDES]
    whole = all(isinstance(value, int) and value > 0 for column in columns for value in column)
    return list(zip(*columns, strict=True)) if whole else None


def _has_objects(cell: Any) -> bool:
    return bool(cell.get(_BOX) if isinstance(cell, Mapping) else cell)


def _objects(table: _BoxTable, row: int) -> list[_Object]:
    """Return the objects of a row."""
    where, cell = f"row {row} of {table.name}", table.cells[row] or []
    if isinstance(cell, Mapping):
        lists = {key: values for key, values in cell.items() if isinstance(values, list)}
        if len({*map(len, lists.values())}) > 1:
            raise UserError(f"{where} has other numbers of boxes than of categories")
        cell = [dict(zip(lists, each, strict=True)) for each in zip(*lists.values(), strict=True)]
    return [_object(each, where) for each in cell]


def _object(facts: Mapping[str, Any], where: str) -> _Object:
    box = corners(facts.get(_BOX), where)
    category = next((facts[key] for key in _CATEGORIES if key in facts), None)
    if isinstance(category, bool) or not isinstance(category, int | str):
        raise UserError(f"{where} has a box without a category")
    return _Object(box, category, any(facts.get(key) for key in _CROWDS))


def _categories(name: str, objects: Sequence[_Object]) -> tuple[str, ...]:
    """Return the categories that occur, sorted."""
    categories = {each.category for each in objects}
    if len({type(each) for each in categories}) > 1:
        raise UserError(f"{name} has categories that are texts, and others that are numbers")
    return tuple(map(str, sorted(categories)))


def _part(table: _BoxTable, rows: Sequence[list[_Object]], classes: Sequence[str]) -> BoxedImages:
    numbers = {name: index for index, name in enumerate(classes)}
    names = [f"row {row} of {table.name}" for row in range(len(rows))]

    def index(category: Any, where: str) -> int:
        listed = table.classes is not None and isinstance(category, int)
        found = category if listed else numbers.get(str(category), -1)
        if not 0 <= found < len(classes):
            raise UserError(f"{where}: {category!r} is none of its categories")
        return int(found)

    boxes = [
        array([(*each.box, index(each.category, where), each.crowd) for each in objects])
        for where, objects in zip(names, rows, strict=True)
    ]
    sizes = _sizes(table, names) if table.sizes is None else table.sizes
    return BoxedImages(names, sizes, boxes, lambda row: opened(table.fetch([row])[0], names[row]))


def _sizes(table: _BoxTable, names: Sequence[str]) -> list[tuple[int, int]]:
    """Read the width and the height of each image."""
    parts = [range(len(names))[at : at + _READ] for at in range(0, len(names), _READ)]
    return [
        size_of(source, names[row])
        for part in parts
        for row, source in zip(part, table.fetch(part), strict=True)
    ]
