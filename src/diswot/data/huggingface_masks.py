"""Data sets of the Hugging Face hub with masks, through the library `datasets`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from diswot.data.dataset import Dataset
from diswot.data.decode import opened, opened_mask
from diswot.data.huggingface_tables import encoded_column, image_columns, known_splits
from diswot.data.masked import MaskClasses, MaskedImages, masked
from diswot.data.own_masks import plain_mask
from diswot.data.tabular import image_column
from diswot.utils.optional_imports import imported

MASKS = (  # usual names of the column
    *("mask", "masks", "annotation", "annotations", "segmentation", "segmentation_mask"),
    *("semantic_segmentation", "label", "labels", "gt"),
)


def has_masks(table: Any) -> bool:
    """Say whether a table of `datasets` has a column of masks beside its column of images."""
    return _column(table) is not None


def hub_masks(name: str, splits: Mapping[str, Any], img_size: int | None) -> Dataset:
    """Return the tables of splits as a data set for segmentation.

    A column such as `mask`, `annotation` or `label` holds images of class indices. The classes have
    the names of the one column that lists the classes in each image, if it has enough; or else they
    are counted from the masks. The split `test` is for testing if it has masks, or else
    `validation`. Without these, or with one split alone, a random 20 % are held out.

    Raises:
        UserError: A table has several columns of images, or the masks have one class.
    """
    known = [split for split, each in splits.items() if _known(each)]
    tables = {split: _table(each, f"{name}:{split}") for split, each in splits.items()}
    parts = known_splits(name, tables, known)
    return masked(name, parts, img_size, _named_classes(next(iter(splits.values())), parts))


def _named_classes(table: Any, parts: Sequence[MaskedImages]) -> MaskClasses | None:
    """Return the names of the one column that is a list of named classes; None without one."""
    label = imported("datasets", "hf").ClassLabel
    kinds = [getattr(kind, "feature", None) for kind in table.features.values()]
    named = [tuple(kind.names) for kind in kinds if isinstance(kind, label)]
    if len(named) != 1 or max(part.highest() for part in parts) >= len(named[0]):
        return None
    return MaskClasses(named[0], {})


def _column(table: Any) -> str | None:
    images = image_columns(table)
    return next((n for n in MASKS if n in images), None) if len(images) > 1 else None


def _known(table: Any) -> bool:
    """Say whether all masks of a table are there: those of test images may be missing."""
    column = _column(table)
    return column is not None and not table.with_format("arrow")[column][:].null_count


def _table(table: Any, name: str) -> MaskedImages:
    column = _column(table)
    assert column is not None
    others = [n for n in image_columns(table) if n not in MASKS]
    image = image_column(list(table.features), others, name)
    names = [f"row {row} of {name}" for row in range(len(table))]
    pictures, masks = (encoded_column(table, each, name) for each in (image, column))
    return MaskedImages(
        [f"the mask of {name}: row {row}" for row in range(len(table))],
        lambda row: opened(pictures([row])[0], names[row]),
        lambda row: plain_mask(opened_mask(masks([row])[0], names[row]), names[row]),
    )
