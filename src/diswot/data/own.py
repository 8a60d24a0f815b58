"""Data sets of a user: map data sets of (image, target), as torchvision's, and loaders of these.

Letters: N images of K classes, S x S pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Subset

from diswot.data.dataset import Dataset, Split, hold_out, subset
from diswot.data.decode import IMAGENET_MEAN, IMAGENET_STD, LARGEST, fitted
from diswot.data.own_boxes import has_boxes, own_boxes
from diswot.data.own_images import Normalisation, normalisation_of, rgb, undivided
from diswot.data.own_masks import has_mask, own_masks
from diswot.errors import UserError, one_line
from diswot.utils import user_code

LOOKED = 4  # images that are read twice, to notice random transforms

_log = logging.getLogger("diswot")


def called(name: str, **options: Any) -> Dataset:
    """Return the data set that a user's function makes.

    Args:
        name: `file.py:function` or `package.module:function`. The function may take `num_classes`
            and `img_size`.
        options: Values of these; None for none.

    Raises:
        UserError: The function fails, or returns no data set.
    """
    given = {key: value for key, value in options.items() if value is not None}
    make = user_code.load(name, **given)
    try:
        made = make()
    except UserError:
        raise
    except Exception as error:  # a user's function may raise anything
        raise UserError(f"{name} fails: {user_code.explain(error, name)}") from error
    return as_dataset(made, name=name, img_size=options.get("img_size"))


def is_data(given: object) -> bool:
    """Say whether an object is a data set, a loader, or a pair for training and testing."""
    if isinstance(given, tuple):
        return len(given) == 2 and all(map(is_data, given)) and not any(_is_list(g) for g in given)
    maps = hasattr(given, "__getitem__") and hasattr(given, "__len__")
    other = isinstance(given, Tensor | Sequence | str | dict)
    return isinstance(given, Dataset | DataLoader) or (maps and not other)


def _is_list(given: object) -> bool:
    return isinstance(given, tuple | list)


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
    parts = [_Part.of(name or type(_inner(each)).__name__, _inner(each)) for each in pair]
    first = parts[0].item(0)[1]
    if has_boxes(first) or has_mask(first):
        return (own_boxes if has_boxes(first) else own_masks)(parts, img_size)
    side = img_size or parts[0].side()
    labels = [part.labels() for part in parts]
    count = max(int(each.max()) for each in labels) + 1
    classes = parts[0].classes(count)
    splits = [
        Split(torch.from_numpy(own), partial(part.read, side))
        for part, own in zip(parts, labels, strict=True)
    ]
    if len(splits) == 1:
        splits = [subset(splits[0], each) for each in hold_out(labels[0], classes)]
    mean, std = parts[0].normalisation or (IMAGENET_MEAN, IMAGENET_STD)
    return Dataset(parts[0].name, classes, side, tuple(mean), tuple(std), *splits)


def _inner(given: object) -> Any:
    """Return the data set of a loader, or the data set itself."""
    return given.dataset if isinstance(given, DataLoader) else given


def _renamed(data: Dataset, name: str | None, side: int | None) -> Dataset:
    """Return a data set of the user under the name that the user wrote."""
    if side is not None and side != data.size:
        raise UserError(f"{name or data.name} has {data.size} x {data.size} pixels, not {side}")
    return data if name is None else replace(data, name=name)


@dataclass(frozen=True)
class _Part:
    """The images of a map data set.

    Attributes:
        name: Name of the data set, for errors.
        data: The map data set.
        normalisation: Mean and deviation by which its transforms normalise; None if they do not.
    """

    name: str
    data: Any
    normalisation: Normalisation | None

    @classmethod
    def of(cls, name: str, data: Any) -> _Part:
        """Look at a data set.

        Raises:
            UserError: It has no length or no images.
        """
        if isinstance(data, IterableDataset) or not hasattr(data, "__len__"):
            raise UserError(f"{name} has no length: name a map data set, whose images have numbers")
        if not len(data):
            raise UserError(f"{name} has no images")
        part = cls(name, data, normalisation_of(undivided(data)))
        part.check()
        return part

    def check(self) -> None:
        """Warn of random transforms, which would alter test images, too."""
        few = range(min(LOOKED, len(self.data)))
        once, again = ([self.pixels(i, None) for i in few] for _ in range(2))
        if not all(map(torch.equal, once, again)):
            _log.warning(
                "%s: an image differs when it is read again; leave random transforms out, since "
                "training images are altered by the recipe and test images must not be",
                self.name,
            )

    def item(self, index: int) -> tuple[Any, Any]:
        """Return an image with its label.

        Raises:
            UserError: There is no such pair.
        """
        try:
            found = self.data[index]
        except Exception as error:  # a user's data set may raise anything
            raise UserError(f"{self.name}: image {index}: {one_line(error)}") from error
        if not isinstance(found, tuple | list) or len(found) != 2:
            kind = type(found).__name__
            raise UserError(f"{self.name} must return pairs (image, label), not a {kind}")
        return found[0], found[1]

    def side(self) -> int:
        """Return the default S: the shorter side of the first image, at most 224."""
        return int(min(LARGEST, *self.pixels(0, None).shape[1:]))

    def labels(self) -> np.ndarray:
        """Return the labels, N; the images are only read if the data set has no list of labels.

        Raises:
            UserError: A label is no whole number from 0.
        """
        found = _listed_labels(self.data)
        if found is None:
            found = [self.item(i)[1] for i in range(len(self.data))]
        labels = np.array([each.item() if isinstance(each, Tensor) else each for each in found])
        if labels.ndim != 1 or labels.dtype.kind not in "iu" or labels.min() < 0:
            raise UserError(f"{self.name}: labels must be whole numbers from 0")
        return labels.astype(np.int64)

    def classes(self, count: int) -> tuple[str, ...]:
        """Return the names of the classes: those of the data set, or else their numbers."""
        names = getattr(undivided(self.data), "classes", None)
        known = isinstance(names, list | tuple) and len(names) >= count
        return tuple(map(str, names)) if known and names else tuple(map(str, range(count)))

    def read(self, side: int, indices: Sequence[int]) -> Tensor:
        """Return some images as bytes, n x 3 x S x S."""
        return torch.stack([self.pixels(int(i), side) for i in indices])

    def picture(self, index: int) -> Any:
        """Return an image as a PIL image in RGB.

        Raises:
            UserError: It is no image of a known form.
        """
        try:
            return rgb(self.item(index)[0], self.normalisation)
        except UserError as error:
            raise UserError(f"{self.name}: image {index}: {error}") from error

    def pixels(self, index: int, side: int | None) -> Tensor:
        """Return an image as bytes, 3 x S x S; of its own height and width if S is None."""
        plain = self.picture(index)
        if side is None:
            return torch.from_numpy(np.array(plain)).permute(2, 0, 1)
        return fitted(plain, side)


def _listed_labels(data: Any) -> list[Any] | None:
    """Return the labels that a data set lists, as torchvision's do; None if it does not."""
    if isinstance(data, Subset):
        listed = _listed_labels(data.dataset)
        return None if listed is None else [listed[i] for i in data.indices]
    labels = getattr(data, "targets", None)
    if labels is None or getattr(data, "target_transform", None) is not None:
        return None
    return list(labels) if len(labels) == len(data) else None
