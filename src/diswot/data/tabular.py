"""Labelled images in the rows of a table, whose image column is read on demand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diswot.data.dataset import Dataset, Split, hold_out, subset
from diswot.data.decode import IMAGENET_NORMALISATION, fitted, opened, side_of
from diswot.errors import UserError

_IMAGE = ("image", "img", "images", "jpg", "png", "pixel_values")
_LABEL = ("label", "labels", "fine_label", "target", "class", "cls")

Fetch = Callable[[Sequence[int]], Sequence[bytes | str]]  # encoded images of some rows, or paths


@dataclass(frozen=True)
class ImageTable:
    """A table of labelled images.

    Attributes:
        name: Name of the table in an error.
        labels: Class index or class name of each row.
        classes: Names of the classes; None if the table does not list them.
        fetch: Function that returns the encoded images of some rows, as bytes or paths of files.
    """

    name: str
    labels: Sequence[Any]
    classes: tuple[str, ...] | None
    fetch: Fetch


def labelled(name: str, tables: Sequence[ImageTable], img_size: int | None) -> Dataset:
    """Return a data set of a table for training, and perhaps one for testing.

    Images are normalised with ImageNet's statistics. Without a table for testing, a stratified 20 %
    is held out.

    Raises:
        UserError: A label is missing, there is one class only, or the tables differ in classes.
    """
    train = tables[0]
    classes = _classes(train)
    for test in tables[1:]:
        if (test.classes is None) != (train.classes is None):
            raise UserError(f"{name}: only one of the training and test tables lists its classes")
        if test.classes not in (None, classes):
            raise UserError(f"{name}: the training and test tables list different classes")
    labels = [_indices(table, classes) for table in tables]
    side = img_size or side_of(opened(train.fetch([0])[0], f"row 0 of {train.name}"))
    splits = [
        Split(torch.from_numpy(own), partial(_read, table, side))
        for table, own in zip(tables, labels, strict=True)
    ]
    if len(tables) == 1:
        splits = [subset(splits[0], rows) for rows in hold_out(labels[0], classes)]
    return Dataset(name, classes, side, *IMAGENET_NORMALISATION, *splits)


def image_column(names: Sequence[str], images: Sequence[str], table: str) -> str:
    """Choose one of the columns that hold images."""
    return _chosen(_IMAGE, images, names, table, "image")


def label_column(names: Sequence[str], classed: Sequence[str], table: str) -> str:
    """Choose the column of labels by its name, else the only column that lists classes."""
    named = [name for name in _LABEL if name in names]
    return _chosen(_LABEL, named or classed, names, table, "label")


def _chosen(
    known: Sequence[str], found: Sequence[str], names: Sequence[str], table: str, what: str
) -> str:
    preferred = [name for name in known if name in found] or list(found)
    if preferred and (len(preferred) == 1 or preferred[0] in known):
        return preferred[0]
    columns = ", ".join(names)
    raise UserError(f"{table}: which column is the {what}? name it {known[0]} (there: {columns})")


def _classes(table: ImageTable) -> tuple[str, ...]:
    """Return the names of the classes: the listed ones, or the labels that occur, in order."""
    if not len(table.labels):
        raise UserError(f"{table.name} is empty")
    labels = [_label(value, row, table.name) for row, value in enumerate(table.labels)]
    names = table.classes
    if names is None:
        kinds = {type(label).__name__: row for row, label in enumerate(labels)}
        if len(kinds) > 1:
            rows = " and ".join(f"{labels[row]!r} in row {row}" for row in sorted(kinds.values()))
            raise UserError(f"{table.name} has labels of several types, such as {rows}")
        names = tuple(map(str, sorted(set(labels))))
    if len(names) < 2:
        raise UserError(f"{table.name} has one class, {names[0]}, and needs at least 2")
    return names


def _label(value: Any, row: int, table: str) -> int | str:
    """Return a label as an integer or a text; a whole number is an integer.

    Raises:
        UserError: There is no label, or it is neither.
    """
    if value is None or value != value:  # NaN is another than itself
        raise UserError(f"row {row} of {table} has no label")
    if isinstance(value, str | bool):
        return str(value)
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        if value >= 0:
            return int(value)
        raise UserError(
            f"row {row} of {table} has the label {int(value)}, which is none of its classes"
        )
    kind = "fraction" if isinstance(value, float) else type(value).__name__
    raise UserError(
        f"row {row} of {table} has a {kind} as its label, and a label is one integer or one text"
    )


def _indices(table: ImageTable, classes: tuple[str, ...]) -> np.ndarray:
    """Return the class index of each row: the integer of a listed class, or else of a name."""
    index: Mapping[str, int] = {name: i for i, name in enumerate(classes)}
    labels = []
    for row, value in enumerate(table.labels):
        label = _label(value, row, table.name)
        number = label if table.classes and isinstance(label, int) else index.get(str(label), -1)
        if not 0 <= number < len(classes):
            which = f"row {row} of {table.name}"
            raise UserError(f"{which} has the label {value!r}, which is none of its classes")
        labels.append(number)
    return np.array(labels, dtype=np.int64)


def _read(table: ImageTable, side: int, rows: Sequence[int]) -> Tensor:
    images = zip(rows, table.fetch(rows), strict=True)
    return torch.stack(
        [fitted(opened(source, f"row {row} of {table.name}"), side) for row, source in images]
    )
