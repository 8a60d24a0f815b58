"""Data sets of a user: map data sets of (image, target), as torchvision's, and loaders of these.

Letters: N images of K classes, S x S pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from diswot.data.dataset import Dataset, Split, hold_out, subset
from diswot.data.decode import side_of
from diswot.data.own_boxes import has_boxes, own_boxes
from diswot.data.own_images import OwnImages
from diswot.data.own_masks import has_mask, own_masks
from diswot.errors import UserError
from diswot.utils import user_code


def own_dataset(name: str, **options: Any) -> Dataset:
    """Return the data set that a user's function makes.

    The function may take those of the options, `num_classes` and `img_size`, that are not None.

    Raises:
        UserError: The function fails, or returns no data set.
    """
    made = user_code.call(name, user_code.load(name, **options))
    return as_dataset(made, name=name, img_size=options.get("img_size"))


def is_data(given: object) -> bool:
    """Say whether an object is a data set, a loader, or a pair for training and testing."""
    if isinstance(given, tuple):
        nested = any(isinstance(each, tuple | list) for each in given)
        return len(given) == 2 and all(map(is_data, given)) and not nested
    maps = hasattr(given, "__getitem__") and hasattr(given, "__len__")
    other = isinstance(given, Tensor | Sequence | str | dict)
    return isinstance(given, Dataset | DataLoader) or (maps and not other)


def as_dataset(given: object, *, name: str | None = None, img_size: int | None = None) -> Dataset:
    """Return any form of labelled images as a data set.

    An image is a PIL image; an array of bytes, H x W or H x W x C; or a tensor C x H x W of bytes
    or of floats from 0 to 1. If the transforms of the data set end with torchvision's `Normalize`,
    its mean and deviation become those of the result.

    Args:
        given: A `Dataset`; a map data set that returns (image, label), (image, mask) as
            `own_masks` takes it, or (image, target) as torchvision's detectors take it, see
            `own_boxes`; a `DataLoader`, of which the data set alone is used; or a pair of these
            for training and testing. Without test images, a stratified 20 % is held out; of
            images with masks or boxes a random 20 %.
        name: Name of the result. Default: that of the class.
        img_size: Height and width in pixels, S. None: the shorter side of the first image, at most
            224.

    Raises:
        UserError: The object is none of these, or its items are no images with labels.
    """
    if isinstance(given, Dataset):
        return _renamed(given, name, img_size)
    if not is_data(given):
        raise UserError(
            f"{name or 'the data'} must be a map data set of (image, label), a loader of one, or a "
            f"pair for training and testing, not a {type(given).__name__}"
        )
    pair = given if isinstance(given, tuple) else (given,)
    parts = [OwnImages.of(name or type(_inner(each)).__name__, _inner(each)) for each in pair]
    first = parts[0].item(0)[1]
    if has_boxes(first):
        return own_boxes(parts, img_size)
    if has_mask(first):
        return own_masks(parts, img_size)
    side = img_size or side_of(parts[0].picture(0))
    classes, labels = _by_class(parts)
    splits = [
        Split(torch.from_numpy(own), partial(part.read, side))
        for part, own in zip(parts, labels, strict=True)
    ]
    if len(splits) == 1:
        splits = [subset(splits[0], each) for each in hold_out(labels[0], classes)]
    return Dataset(parts[0].name, classes, side, *parts[0].mean_and_std, *splits)


def _by_class(parts: Sequence[OwnImages]) -> tuple[tuple[str, ...], list[np.ndarray]]:
    """Return the names of the classes, and the class index of each image of each part.

    The classes are those that the data set lists, if its labels count in that list; else the
    labels that occur.
    """
    labels, listed = [part.labels() for part in parts], parts[0].names
    if len(listed) > max(int(own.max()) for own in labels):
        return tuple(listed), labels
    known = np.unique(np.concatenate(labels))
    if len(known) < 2:
        raise UserError(f"{parts[0].name} has one class, {known[0]}, and needs at least 2")
    return tuple(map(str, known)), [np.searchsorted(known, own) for own in labels]


def _inner(given: object) -> Any:
    """Return the data set of a loader, or the data set itself."""
    return given.dataset if isinstance(given, DataLoader) else given


def _renamed(data: Dataset, name: str | None, side: int | None) -> Dataset:
    """Return a data set of the user under the name that the user wrote."""
    if side is not None and side != data.size:
        raise UserError(f"{name or data.name} has {data.size} x {data.size} pixels, not {side}")
    return data if name is None else replace(data, name=name)
