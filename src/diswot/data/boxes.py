"""Data sets for detection: images with boxes of any format, as one resized and padded tensor.

A reader of a format gives `BoxedImages`; `boxed` makes a data set of them. All images get one
size. They keep their aspect ratio, as users of detectors expect: an image of another aspect ratio
is resized until it fits, and the space below or beside the image gets the mean colour.

Letters: N images, n boxes of an image, M boxes of a row of targets, K classes, H x W pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from diswot.data.dataset import UNLABELLED, Dataset, Split, hold_out_any
from diswot.data.decode import (
    IMAGENET_NORMALISATION,
    Normalisation,
    inner_size,
    opened_image,
    padded,
)
from diswot.errors import UserError
from diswot.utils.untrusted import number

T = TypeVar("T")

_log = logging.getLogger("diswot")

COLUMNS = 6  # x1, y1, x2, y2, class index, whether it is a crowd or a difficult object
LONGEST_SIDE = 1333  # default limit of the longer side in pixels, as in torchvision's detectors
_SLACK = 1.0  # pixels by which a box may leave its image, from rounding
_FARTHEST = 1e9  # coordinate in pixels that float32 still holds well
_THINNEST = 0.01  # least width and height of a box in pixels of the image file


@dataclass(frozen=True)
class BoxedImages:
    """Images of a split with their boxes, in pixels of the image files.

    Attributes:
        names: Names of the N images in errors.
        sizes: Width and height of each image in pixels.
        boxes: Boxes of each image, n x 6: x1, y1, x2, y2, class index, and 1 for a crowd or a
            difficult object, else 0.
        open: Function that decodes the image of a number to RGB.
    """

    names: Sequence[str]
    sizes: Sequence[tuple[int, int]]
    boxes: Sequence[np.ndarray]
    open: Callable[[int], Any]

    def some(self, chosen: np.ndarray) -> BoxedImages:
        """Return the images of some numbers."""
        kept = [int(i) for i in chosen]
        return BoxedImages(
            [self.names[i] for i in kept],
            [self.sizes[i] for i in kept],
            [self.boxes[i] for i in kept],
            lambda number: self.open(kept[number]),
        )


def image_files(
    paths: Sequence[str], sizes: Sequence[tuple[int, int]], boxes: Sequence[np.ndarray]
) -> BoxedImages:
    """Return image files with boxes; paths, sizes and boxes are as in `BoxedImages`."""
    return BoxedImages(paths, sizes, boxes, lambda number: opened_image(paths[number]))


def corners(box: object, where: str) -> tuple[float, float, float, float]:
    """Return a box of COCO, which is x, y, width and height, as x1, y1, x2, y2.

    Raises:
        UserError: It is no list of four numbers; the error begins with `where`.
    """
    if not isinstance(box, list) or [*map(number, box)].count(None) or len(box) != 4:
        raise UserError(f"{where} has no bbox of four numbers")
    left, top, width, height = box
    return left, top, left + width, top + height


def array(boxes: Sequence[Sequence[float]]) -> np.ndarray:
    """Return the boxes of an image as an array, n x 6."""
    found = np.array(boxes, dtype=np.float64).reshape(-1, COLUMNS)
    near = np.where(np.isfinite(found), found.clip(-_FARTHEST, _FARTHEST), np.nan)
    return near.astype(np.float32)


def train_and_test(root: Path, splits: Mapping[str, T]) -> list[T]:
    """Return the training split, and `test` or else `val` if there is one.

    One line of the log names a `val` that is left out. The folder is that of the data set, for
    the messages.

    Raises:
        UserError: There is no `train`.
    """
    if "train" not in splits:
        raise UserError(f"{root} has images with boxes for {' and '.join(splits)}, none for train")
    if "val" in splits and "test" in splits:
        _log.warning("%s: left out the split val, as there is a split test", root)
    return [splits[each] for each in ("train", "test", "val") if each in splits][:2]


def boxed(
    name: str,
    classes: Sequence[str],
    parts: Sequence[BoxedImages],
    img_size: int | None,
    normalisation: Normalisation = IMAGENET_NORMALISATION,
) -> Dataset:
    """Return images with boxes as a data set for detection.

    Boxes are clipped to their images. Boxes of no size, and boxes that an image has twice, are
    dropped. Images without boxes are kept. One line of the log counts all of these.

    Args:
        name: Name of the data set.
        classes: Names of the K classes.
        parts: Images for training, and perhaps for testing; without the latter, a random 20 % are
            held out.
        img_size: Height of all images in pixels, H. None: that of the first image; if its longer
            side has more than 1,333 pixels, the first image is resized to 1,333. The aspect ratio
            of the first image is that of the data set.
        normalisation: Mean and deviation of each channel. Default: those of ImageNet.

    Raises:
        UserError: There are no images or no boxes for training, or a coordinate is no number.
    """
    train = parts[0]
    if len(parts) == 1:
        parts = [train.some(chosen) for chosen in hold_out_any(name, len(train.names))]
    for part, kind in zip(parts, ("training", "test"), strict=True):
        if not len(part.names):
            raise UserError(f"{name} has no {kind} images")
    counts = _Counts()
    splits = [_checked(part, counts) for part in parts]
    counts.note(name)
    if not any(map(len, splits[0].boxes)):
        count = len(splits[0].names)
        raise UserError(f"{name} has no boxes in its {count:,} training images")
    size = _size(splits[0].sizes[0], img_size)
    mean, std = normalisation
    made = [_split(part, len(classes), size, mean) for part in splits]
    facts = (name, tuple(classes), size[0], mean, std)
    return Dataset(*facts, *made, width=size[1], task="detection")


@dataclass
class _Counts:
    """Numbers of images and boxes to which a rule applied."""

    empty: int = 0
    clipped: int = 0
    sizeless: int = 0
    twice: int = 0
    crowds: int = 0

    def note(self, name: str) -> None:
        """Log the numbers in one line, if there are any."""
        noted = {
            f"kept {_counted(self.empty, 'image')} without boxes": self.empty,
            f"clipped {_counted(self.clipped, 'box')} to the image": self.clipped,
            f"dropped {_counted(self.sizeless, 'box')} of no size": self.sizeless,
            f"dropped {_counted(self.twice, 'box')} for being there twice": self.twice,
            f"{_counted(self.crowds, 'box')} of crowds or difficult objects": self.crowds,
        }
        if parts := [text for text, count in noted.items() if count]:
            _log.warning("%s: %s", name, "; ".join(parts))


def _counted(count: int, noun: str) -> str:
    plural = noun + ("es" if noun.endswith("x") else "s")
    return f"{count:,} {noun if count == 1 else plural}"


def _checked(images: BoxedImages, counts: _Counts) -> BoxedImages:
    """Return the images with boxes that lie within them, have a size, and are there once."""
    numbers = [len(each) for each in images.boxes]
    owner = np.repeat(np.arange(len(numbers)), numbers)
    rows = np.concatenate([np.empty((0, COLUMNS), np.float32), *images.boxes])
    if not np.isfinite(rows).all():
        wrong = images.names[owner[(~np.isfinite(rows)).any(1)][0]]
        raise UserError(f"{wrong} has a box whose coordinates are no numbers")
    sides = np.array(images.sizes, dtype=np.float32).reshape(-1, 2)[owner]
    inside = np.clip(rows[:, :4], 0, np.tile(sides, 2))
    moved = (abs(inside - rows[:, :4]) > _SLACK).any(1)
    rows = np.concatenate((inside, rows[:, 4:]), 1)
    sized = (rows[:, 2:4] - rows[:, :2] >= _THINNEST).all(1)
    counts.clipped += int((moved & sized).sum())
    counts.sizeless += int((~sized).sum())
    owner, rows = owner[sized], rows[sized]
    first = np.unique(np.column_stack((owner, rows[:, :5])), axis=0, return_index=True)[1]
    first.sort()
    counts.twice += len(rows) - len(first)
    owner, rows = owner[first], rows[first]
    counts.crowds += int((rows[:, 5] > 0).sum())
    left = np.bincount(owner, minlength=len(numbers))
    counts.empty += int((left == 0).sum())
    return replace(images, boxes=np.split(rows, np.cumsum(left)[:-1]))


def _size(first: tuple[int, int], img_size: int | None) -> tuple[int, int]:
    """Return height and width of the data set from the width and the height of its first image."""
    width, height = first
    side = img_size or min(height, max(1, round(height * LONGEST_SIDE / max(first))))
    return side, max(1, round(width * side / height))


def _split(
    images: BoxedImages, classes: int, size: tuple[int, int], mean: Sequence[float]
) -> Split:
    colour = (round(255 * mean[0]), round(255 * mean[1]), round(255 * mean[2]))
    most = max(1, *map(len, images.boxes))
    return Split(
        torch.from_numpy(_rarest(images.boxes, classes)),
        partial(_read, images, size, colour),
        partial(_targets, images, size, most),
    )


def _rarest(boxes: Sequence[np.ndarray], classes: int) -> np.ndarray:
    """Return the rarest class among the boxes of each image; K for an image without boxes."""
    learned = [each[each[:, 5] == 0, 4].astype(np.int64) for each in boxes]
    counts = np.bincount(np.concatenate(learned), minlength=classes)
    return np.array([min(own, key=counts.__getitem__, default=classes) for own in learned])


def _read(
    images: BoxedImages,
    size: tuple[int, int],
    colour: tuple[int, int, int],
    indices: Sequence[int],
) -> Tensor:
    """Return some images as bytes, n x 3 x H x W."""
    found = torch.empty(len(indices), 3, *size, dtype=torch.uint8)
    for place, index in zip(found, indices, strict=True):
        image, (width, height) = images.open(int(index)), images.sizes[index]
        if image.size != (width, height):
            raise UserError(
                f"{images.names[index]} has {image.width} x {image.height} pixels, as its EXIF "
                f"turns the image, and its boxes are for {width} x {height}"
            )
        place.copy_(padded(image, size, colour))
    return found


def _targets(
    images: BoxedImages, size: tuple[int, int], most: int, indices: Sequence[int]
) -> Tensor:
    """Return the boxes of some images in pixels of the resized images, n x M x 6."""
    found = torch.zeros(len(indices), most, COLUMNS)
    found[..., 4] = UNLABELLED
    for place, index in zip(found, indices, strict=True):
        (width, height), boxes = images.sizes[index], images.boxes[index]
        down, across = inner_size((width, height), size)
        scale = (across / width, down / height)
        place[: len(boxes)] = torch.from_numpy(boxes) * torch.tensor((*scale, *scale, 1, 1))
    return found
