"""Data sets of a user with boxes: pairs (image, target) as torchvision's detectors take them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from diswot.data.boxes import BoxedImages, array, boxed
from diswot.data.dataset import Dataset
from diswot.data.own_images import OwnImages
from diswot.errors import UserError

_BACKGROUND = ("background", "__background__")
_CROWDS = ("iscrowd", "difficult")


def has_boxes(target: object) -> bool:
    """Say whether the target of an image is one of torchvision's detectors."""
    return isinstance(target, Mapping) and "boxes" in target


def own_boxes(parts: Sequence[OwnImages], img_size: int | None) -> Dataset:
    """Return pairs (image, target) as a data set for detection. All images are read once.

    A target has `boxes`, n x 4 in pixels of the image, as x1, y1, x2, y2 or as torchvision's
    `BoundingBoxes` of another format; and `labels`, n, from 1, as 0 is the background. It may have
    `iscrowd` or `difficult`, n. The attribute `classes` of the data set names the classes. The rest
    is as in `boxed`.

    Raises:
        UserError: A target has another form.
    """
    read = [[_read(part, index) for index in range(len(part))] for part in parts]
    labels = [int(boxes[:, 4].max()) for images in read for _, boxes in images if len(boxes)]
    classes = _classes(parts[0], max(labels, default=0) + 1)
    images = [
        BoxedImages(
            [f"{part.name}: image {index}" for index in range(len(part))],
            [size for size, _ in found],
            [boxes for _, boxes in found],
            part.picture,
        )
        for part, found in zip(parts, read, strict=True)
    ]
    return boxed(parts[0].name, classes, images, img_size, parts[0].mean_and_std)


def _classes(part: OwnImages, count: int) -> Sequence[str]:
    """Return the names of the classes: those of the data set, or else their labels from 1."""
    known = part.names
    if known and known[0].lower() in _BACKGROUND:
        known = known[1:]
    return known if len(known) >= count else [str(label) for label in range(1, count + 1)]


def _read(part: OwnImages, index: int) -> tuple[tuple[int, int], np.ndarray]:
    """Return width and height of an image, and its boxes, n x 6."""
    where, (image, target) = f"{part.name}: image {index}", part.item(index)
    if not has_boxes(target) or "labels" not in target:
        raise UserError(f"{where} has no target with boxes and labels")
    try:
        boxes = torch.as_tensor(target["boxes"]).double().reshape(-1, 4)
        labels = torch.as_tensor(target["labels"]).double().reshape(-1)
        crowds = [torch.as_tensor(target[key]).reshape(-1) for key in _CROWDS if key in target]
        crowd = sum((each != 0 for each in crowds), torch.zeros(len(labels)))
        rows = torch.cat((_corners(target["boxes"], boxes), labels[:, None], crowd[:, None] > 0), 1)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{where}: boxes must be n x 4, and labels (and iscrowd) n numbers"
        ) from error
    if (labels != labels.floor()).any() or (labels < 1).any():
        raise UserError(
            f"{where} has the label {labels.min():g}; labels count from 1, as torchvision's "
            "detectors take them, and 0 is the background"
        )
    rows[:, 4] -= 1
    width, height = part.plain(image, index).size
    return (width, height), array(rows.tolist())


def _corners(given: Any, boxes: torch.Tensor) -> torch.Tensor:
    """Return boxes as x1, y1, x2, y2, from the format of torchvision's `BoundingBoxes`."""
    from torchvision.ops import box_convert

    form = getattr(getattr(given, "format", None), "value", "XYXY").lower()
    return boxes if form == "xyxy" else box_convert(boxes, form, "xyxy")
