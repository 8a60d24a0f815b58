"""Labelled images in the rows of a table, whose image column is read only where it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diswot.data.dataset import Data, Split, hold_out
from diswot.data.decode import IMAGENET_MEAN, IMAGENET_STD, fitted, opened, side_of
from diswot.errors import UserError

_IMAGE = ("image", "img", "images", "jpg", "png", "pixel_values")
_LABEL = ("label", "labels", "fine_label", "target", "class", "cls")


@dataclass(frozen=True)
class Records:
    """A table's rows.

    Attributes:
        name: What to call the table in an error.
        labels: Class indices or names, a value a row.
        classes: Names of the classes, where the table tells them.
        fetch: Encoded images of some rows: bytes, or the path of a file.
    """

    name: str
    labels: Sequence[Any]
    classes: tuple[str, ...] | None
    fetch: Callable[[Sequence[int]], Sequence[bytes | str]]


def data(name: str, train: Records, test: Records | None, size: int | None) -> Data:
    """Tables for training and testing as a data set; without the latter a fifth is kept for it.

    Images are normalised with ImageNet's statistics.

    Raises:
        UserError: A label is missing, there is one class only, or the two differ in classes.
    """
    classes = _classes(train)
    labels = _indices(train, classes)
    side = size or side_of(opened(train.fetch([0])[0], f"row 0 of {train.name}"))
    look = (name, classes, side, IMAGENET_MEAN, IMAGENET_STD)
    if test is not None:
        tested = _indices(test, classes)
        return Data(*look, _split(train, labels, side), _split(test, tested, side))
    parts = hold_out(labels)
    return Data(*look, *(_split(train, labels, side, rows) for rows in parts))


def image_column(names: Sequence[str], images: Sequence[str], table: str) -> str:
    """Which of the columns that hold images to take."""
    return _chosen(_IMAGE, images, names, table, "image")


def label_column(names: Sequence[str], classed: Sequence[str], table: str) -> str:
    """Which column holds the labels: by its name, else the only one that lists its classes."""
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


def _classes(records: Records) -> tuple[str, ...]:
    """Names of the classes: told, or the different values of the labels, in order."""
    if not len(records.labels):
        raise UserError(f"{records.name} is empty")
    missing = [row for row, label in enumerate(records.labels) if label is None]
    if missing:
        raise UserError(f"row {missing[0]} of {records.name} has no label")
    if records.classes is not None:
        names = records.classes
    else:
        values = sorted(set(records.labels))
        if isinstance(values[0], int) and values[0] >= 0:
            values = list(range(values[-1] + 1))
        names = tuple(map(str, values))
    if len(names) < 2:
        raise UserError(f"{records.name} has one class, {names[0]}, and needs at least 2")
    return names


def _indices(records: Records, classes: tuple[str, ...]) -> np.ndarray:
    """The label of each row as an index of the classes."""
    index: Mapping[Any, int] = {name: i for i, name in enumerate(classes)}
    labels = []
    for row, value in enumerate(records.labels):
        label = value if isinstance(value, int) else index.get(str(value), -1)
        if not 0 <= label < len(classes):
            which = f"row {row} of {records.name}"
            raise UserError(f"{which} has the label {value!r}, which is none of its classes")
        labels.append(label)
    return np.array(labels, dtype=np.int64)


def _split(
    records: Records, labels: np.ndarray, side: int, rows: np.ndarray | None = None
) -> Split:
    rows = np.arange(len(labels)) if rows is None else rows
    return Split(torch.from_numpy(labels[rows]), partial(_read, records, rows, side))


def _read(records: Records, rows: np.ndarray, side: int, indices: Sequence[int]) -> Tensor:
    chosen = [int(rows[i]) for i in indices]
    images = torch.empty(len(chosen), 3, side, side, dtype=torch.uint8)
    for image, row, source in zip(images, chosen, records.fetch(chosen), strict=True):
        image.copy_(fitted(opened(source, f"row {row} of {records.name}"), side))
    return images
