"""Data sets of the Hugging Face hub, through the library `datasets`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diswot.data.dataset import Dataset
from diswot.data.huggingface_boxes import has_boxes, hub_boxes
from diswot.data.huggingface_masks import has_masks, hub_masks
from diswot.data.huggingface_tables import encoded_column, image_columns, known_splits
from diswot.data.tabular import ImageTable, image_column, label_column, labelled
from diswot.errors import UserError
from diswot.utils.optional_imports import imported, one_line_errors

PREFIX = "hf:"


def hub(name: str, *, img_size: int | None) -> Dataset:
    """Return the images of `hf:NAME[,CONFIG][:SPLIT]`, which the library downloads and caches.

    If a column holds boxes, the data set is one for detection; see `hub_boxes`. If a second column
    holds images that are masks, it is one for segmentation; see `hub_masks`.

    Args:
        name: NAME is a name of the hub or a local folder. SPLIT may be a slice such as
            `train[:10%]`; nothing else is read then. Without SPLIT, `train` is for training, and
            `test` for testing if its labels are known, or else `validation`. Without test images,
            a stratified 20 % is held out.
        img_size: Height and width in pixels, S. None: the shorter side of the first image, at most
            224.

    Raises:
        UserError: The data set cannot be found or fetched, or holds no labelled images.
    """
    where, _, split = name.removeprefix(PREFIX).partition(":")
    path, _, config = where.partition(",")
    if not path or (path[0] in "./~" and not Path(path).is_dir()):
        raise UserError(f"no such folder: {path}" if path else f"{name} names no data set")
    datasets = imported("datasets", "hf")
    with one_line_errors(name, "is not here, and cannot be fetched"):
        found = datasets.load_dataset(path, config or None, split=split or None)
    tables = {"train": found} if split else found
    first = next(iter(tables.values()))
    if has_boxes(first):
        return hub_boxes(name, tables, img_size)
    if has_masks(first):
        return hub_masks(name, tables, img_size)
    if split:
        return labelled(name, [_image_table(found, name)], img_size)
    known = [each for each, table in found.items() if _has_labels(table)]
    chosen = known_splits(name, {each: each for each in found}, known)
    read = [_image_table(found[each], f"{name}:{each}") for each in chosen]
    return labelled(name, read, img_size)


def _columns(table: Any, name: str) -> tuple[str, str]:
    kind = imported("datasets", "hf").ClassLabel
    names = list(table.features)
    classed = [n for n, each in table.features.items() if isinstance(each, kind)]
    return image_column(names, image_columns(table), name), label_column(names, classed, name)


def _has_labels(table: Any) -> bool:
    """Say whether all labels are known: unknown labels of test images are often -1."""
    _, label = _columns(table, "")
    values = table.with_format("arrow")[label][:]
    return not any(value is None or value == -1 for value in values.to_pylist())


def _image_table(table: Any, name: str) -> ImageTable:
    datasets = imported("datasets", "hf")
    image, label = _columns(table, name)
    kind = table.features[label]
    classes = tuple(kind.names) if isinstance(kind, datasets.ClassLabel) else None
    labels = table.select_columns([label])[label][:]
    return ImageTable(name, labels, classes, encoded_column(table, image, name))
