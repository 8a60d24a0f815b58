"""Images with boxes in the rows of a table, whose image column is read on demand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diswot.data.boxes import BoxedImages, array, boxed, corners
from diswot.data.dataset import Dataset
from diswot.data.decode import opened_image, size_of
from diswot.data.tabular import Fetch
from diswot.errors import UserError

BOX = "bbox"
CATEGORIES = ("category", "category_id", "categories", "label", "labels", "class")
_CROWDS = ("iscrowd", "is_crowd", "crowd")
_READ = 100  # images that are read at once for their sizes


@dataclass(frozen=True)
class BoxTable:
    """A table of images with boxes.

    Attributes:
        name: Name of the table in an error.
        objects: Objects of each row: a mapping of lists, or a list of mappings, with `bbox` and one
            of `CATEGORIES`.
        classes: Names of the classes; None if the table does not list them.
        sizes: Width and height of each image; None to read them from the images.
        fetch: Function that returns the encoded images of some rows, as bytes or paths of files.
    """

    name: str
    objects: Sequence[Any]
    classes: tuple[str, ...] | None
    sizes: Sequence[tuple[int, int]] | None
    fetch: Fetch


def box_data(name: str, tables: Sequence[BoxTable], img_size: int | None) -> Dataset:
    """Return a data set for detection of a table for training, and perhaps one for testing.

    A box is x, y, width and height in pixels, as in COCO. Classes are as listed, or else the
    categories that occur, sorted. The rest is as in `boxed`.

    Raises:
        UserError: A row has no boxes with categories, or the tables list different classes.
    """
    if len({table.classes for table in tables}) > 1:
        raise UserError(f"{name}: the training and test tables list different classes")
    rows = [[_objects(table, row) for row in range(len(table.objects))] for table in tables]
    classes = tables[0].classes or _found(
        name, [each for table in rows for row in table for each in row]
    )
    parts = [_part(*each, classes) for each in zip(tables, rows, strict=True)]
    return boxed(name, classes, parts, img_size)


@dataclass(frozen=True)
class _Object:
    box: tuple[float, ...]
    category: int | str
    crowd: bool


def _objects(table: BoxTable, row: int) -> list[_Object]:
    """Return the objects of a row."""
    where, cell = f"row {row} of {table.name}", table.objects[row] or []
    if isinstance(cell, Mapping):
        if len({len(values) for values in cell.values() if isinstance(values, list)}) > 1:
            raise UserError(f"{where} has other numbers of boxes than of categories")
        lists = {key: values for key, values in cell.items() if isinstance(values, list)}
        cell = [
            dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)
        ]
    return [_object(each, where) for each in cell]


def _object(facts: Mapping[str, Any], where: str) -> _Object:
    box = corners(facts.get(BOX), where)
    category = next((facts[key] for key in CATEGORIES if key in facts), None)
    if isinstance(category, bool) or not isinstance(category, int | str):
        raise UserError(f"{where} has a box without a category")
    return _Object(box, category, any(facts.get(key) for key in _CROWDS))


def _found(name: str, objects: Sequence[_Object]) -> tuple[str, ...]:
    """Return the categories that occur, sorted."""
    categories = {each.category for each in objects}
    if len({type(each) for each in categories}) > 1:
        raise UserError(f"{name} has categories that are texts, and others that are numbers")
    return tuple(map(str, sorted(categories, key=lambda each: (str(type(each)), each))))


def _part(table: BoxTable, rows: Sequence[list[_Object]], classes: Sequence[str]) -> BoxedImages:
    numbers = {name: index for index, name in enumerate(classes)}

    def index(category: int | str, row: int) -> int:
        found = numbers.get(str(category), -1)
        if table.classes is not None and isinstance(category, int):
            found = category
        if not 0 <= found < len(classes):
            raise UserError(f"row {row} of {table.name}: {category!r} is none of its categories")
        return found

    boxes = [
        array([(*each.box, index(each.category, row), each.crowd) for each in objects])
        for row, objects in enumerate(rows)
    ]
    names = [f"row {row} of {table.name}" for row in range(len(rows))]
    sizes = _sizes(table, names) if table.sizes is None else table.sizes
    return BoxedImages(
        names, sizes, boxes, lambda row: opened_image(table.fetch([row])[0], names[row])
    )


def _sizes(table: BoxTable, names: Sequence[str]) -> list[tuple[int, int]]:
    """Read the width and the height of each image."""
    parts = [range(len(names))[at : at + _READ] for at in range(0, len(names), _READ)]
    return [
        size_of(source, names[row])
        for part in parts
        for row, source in zip(part, table.fetch(part), strict=True)
    ]
