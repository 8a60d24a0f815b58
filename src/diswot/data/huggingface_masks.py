"""Data sets of the Hugging Face hub with masks, through the library `datasets`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from diswot.data.boxes import train_and_test
from diswot.data.dataset import Dataset
from diswot.data.decode import IMAGENET_MEAN, IMAGENET_STD, opened, opened_mask
from diswot.data.masked import MaskedImages, masked
from diswot.data.own_masks import plain_mask
from diswot.data.parquet import encoded_images
from diswot.data.split_folders import split_of
from diswot.data.tabular import image_column
from diswot.utils.optional_imports import imported

MASKS = (
    "mask",
    "masks",
    "annotation",
    "annotations",
    "segmentation",
    "segmentation_mask",
    "semantic_segmentation",
    "label",
    "labels",
    "gt",
)  # usual names of the column


def has_masks(table: Any) -> bool:
    """Say whether a table of `datasets` has a column of masks beside its column of images."""
    return _column(table) is not None


def hub_masks(name: str, splits: Mapping[str, Any], img_size: int | None) -> Dataset:
    """Return tables of `datasets` as a data set for segmentation.

    A column such as `mask`, `annotation` or `label` holds images of class indices. The classes have
    the names of the one column that lists the classes in each image, if it has enough; or else they
    are counted from the masks. The split `test` is for testing if it has masks, or else
    `validation`. Without these, or with one split alone, a random 20 % are held out.

    Args:
        name: Name of the data set.
        splits: Table of each split.
        img_size: Height in pixels. None: that of the first image.

    Raises:
        UserError: A table has several columns of images, or the masks have one class.
    """
    tables = {split: _table(each, f"{name}:{split}") for split, each in splits.items()}
    known = {split_of(split): tables[split] for split, each in splits.items() if _known(each)}
    if "train" not in known:
        known = {"train": next(iter(tables.values()))}
    named = {split: each for split, each in known.items() if split}
    train, test = train_and_test(Path(name), named)
    names, parts = _class_names(next(iter(splits.values()))), (train, test or train)
    if names is not None and max(part.highest() for part in parts) >= len(names):
        names = None
    return masked(name, names, train, test, img_size, (IMAGENET_MEAN, IMAGENET_STD))


def _class_names(table: Any) -> list[str] | None:
    """Return the names of the one column that is a list of named classes; None without one."""
    label = imported("datasets", "hf").ClassLabel
    kinds = [getattr(kind, "feature", None) for kind in table.features.values()]
    named = [list(kind.names) for kind in kinds if isinstance(kind, label)]
    return named[0] if len(named) == 1 else None


def _column(table: Any) -> str | None:
    images = _images(table)
    return next((n for n in MASKS if n in images), None) if len(images) > 1 else None


def _images(table: Any) -> list[str]:
    """Return the names of the columns of images."""
    datasets = imported("datasets", "hf")
    return [n for n, kind in table.features.items() if isinstance(kind, datasets.Image)]


def _known(table: Any) -> bool:
    """Say whether all masks of a table are there: those of test images may be missing."""
    column = _column(table)
    return column is not None and not table.with_format("arrow")[column][:].null_count


def _table(table: Any, name: str) -> MaskedImages:
    datasets, column = imported("datasets", "hf"), _column(table)
    assert column is not None
    images = [n for n in _images(table) if n not in MASKS]
    image = image_column(list(table.features), images, name)
    encoded = [
        partial(
            encoded_images,
            table.select_columns([each]).cast_column(each, datasets.Image(decode=False)),
            each,
            name,
        )
        for each in (image, column)
    ]
    return MaskedImages(
        f"{name}: row",
        range(len(table)),
        partial(_picture, encoded[0], name),
        partial(_mask, encoded[1], name),
    )


def _picture(fetch: Any, name: str, row: int) -> Any:
    return opened(fetch([row])[0], f"row {row} of {name}")


def _mask(fetch: Any, name: str, row: int) -> Any:
    source, where = fetch([row])[0], f"row {row} of {name}"
    return plain_mask(opened_mask(source, where), where)
