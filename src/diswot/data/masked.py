"""Images with masks that a user's code or a table returns, as a data set for segmentation.

Letters: n images, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diswot.data.dataset import Dataset, Split, hold_out_any
from diswot.data.decode import fitted
from diswot.data.masks import VOID, MaskClasses, check_shape, fitted_mask
from diswot.data.own_images import Normalisation
from diswot.errors import UserError


@dataclass(frozen=True)
class MaskedImages:
    """Images with masks, which are read on demand.

    Attributes:
        name: Name of an image in an error, without its number.
        rows: Numbers of the images.
        picture: Function that returns an image of a number as a PIL image in RGB.
        mask: Function that returns its mask as a PIL image of bytes, one a pixel.
    """

    name: str
    rows: Sequence[int]
    picture: Callable[[int], Any]
    mask: Callable[[int], Any]

    def highest(self) -> int:
        """Return the highest class of all masks; -1 if all pixels are void."""
        found = -1
        for row in self.rows:
            pixels = np.array(self.mask(row))
            found = max(found, int(pixels[pixels != VOID].max(initial=0)))
        return found

    def images(self, size: tuple[int, int], indices: Sequence[int]) -> Tensor:
        """Return some images as bytes, n x 3 x H x W."""
        return torch.stack([fitted(self.picture(self.rows[int(i)]), *size) for i in indices])

    def targets(
        self, classes: MaskClasses, size: tuple[int, int], indices: Sequence[int]
    ) -> Tensor:
        """Return the classes of the pixels of some masks, int64, n x H x W.

        Raises:
            UserError: A mask has another aspect ratio than its image, or a value of no class.
        """
        found = torch.empty(len(indices), *size, dtype=torch.int64)
        for place, index in enumerate(indices):
            row = self.rows[int(index)]
            where, mask = f"the mask of {self.name} {row}", self.mask(row)
            check_shape(mask, self.picture(row).size, where)
            found[place] = torch.from_numpy(classes.read(fitted_mask(mask, size), where))
        return found

    def split(self, classes: MaskClasses, size: tuple[int, int]) -> Split:
        """Return the images as a split."""
        everyone = torch.zeros(len(self.rows), dtype=torch.int64)
        read = partial(self.images, size)
        return Split(everyone, read, partial(self.targets, classes, size))


def masked(
    name: str,
    classes: Sequence[str] | None,
    train: MaskedImages,
    test: MaskedImages | None,
    img_size: int | None,
    normalisation: Normalisation,
) -> Dataset:
    """Return images with masks as a data set.

    Args:
        name: Name of the data set.
        classes: Names of the K classes; None to count them from all masks.
        train: Images for training.
        test: Images for testing; without them, a random 20 % are held out.
        img_size: Height in pixels. None: that of the first image.
        normalisation: Mean and deviation of each channel.

    Raises:
        UserError: There are too few images or classes.
    """
    if not classes:
        highest = max(part.highest() for part in (train, test) if part is not None)
        classes = [f"class {label}" for label in range(highest + 1)]
    if len(classes) < 2:
        raise UserError(f"the masks of {name} have one class")
    if test is None:
        kept, held = hold_out_any(name, len(train.rows))
        train, test = (
            replace(train, rows=[train.rows[i] for i in chosen]) for chosen in (kept, held)
        )
    width, height = train.picture(train.rows[0]).size
    side = img_size or height
    across = max(1, round(width * side / height))
    known = MaskClasses(tuple(classes), {})
    splits = [part.split(known, (side, across)) for part in (train, test)]
    look = tuple(classes), side, *normalisation
    return Dataset(name, *look, *splits, width=across, task="segmentation")
