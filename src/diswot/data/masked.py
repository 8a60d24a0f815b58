"""Images with masks, which are read on demand, as a data set for segmentation.

Letters: n images, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diswot.data.dataset import UNLABELLED, Dataset, Split, hold_out_any, subset
from diswot.data.decode import IMAGENET_NORMALISATION, Normalisation, fitted
from diswot.errors import UserError

NAMES = ("classes.txt", "labels.txt")  # one class a line, with its colour if masks are coloured
VOID = 255  # value of a pixel without a class, in Pascal VOC and elsewhere

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class MaskClasses:
    """The classes of masks.

    Attributes:
        names: Names of the K classes.
        colours: Class of each colour; empty if masks hold class indices.
    """

    names: tuple[str, ...]
    colours: Mapping[Colour, int]

    def read(self, mask: Any, path: str) -> np.ndarray:
        """Return the classes of a mask's pixels, H x W; `UNLABELLED` for void ones.

        Void are 255, and the index K after the last class; of coloured masks black, if it is the
        colour of no class. Grey masks are coloured ones where the classes have colours.

        Raises:
            UserError: A value or a colour is that of no class.
        """
        pixels = np.array(mask.convert("RGB") if self.colours and mask.mode == "L" else mask)
        if pixels.ndim == 2:
            return self._indices(pixels, path)
        if not self.colours:
            raise UserError(
                f"{path} is a coloured mask; write a line for each class into {NAMES[0]} beside "
                "the folders, such as 'road 128 64 128'"
            )
        codes = pixels[..., :3].astype(np.int64) @ (65536, 256, 1)
        found = np.full(codes.shape, len(self.names) + 1, dtype=np.int64)
        found[codes == 0] = UNLABELLED
        for (red, green, blue), label in self.colours.items():
            found[codes == 65536 * red + 256 * green + blue] = label
        if (found > len(self.names)).any():
            row, column = (int(at[0]) for at in (found > len(self.names)).nonzero())
            colour = " ".join(map(str, pixels[row, column, :3]))
            raise UserError(f"{path} has the colour {colour}, which is that of no class")
        return found

    def _indices(self, pixels: np.ndarray, path: str) -> np.ndarray:
        found = pixels.astype(np.int64)
        found[(found == VOID) | (found == len(self.names))] = UNLABELLED
        if (found > len(self.names)).any():
            raise UserError(
                f"{path} has the value {found.max()}, and the classes are 0 to "
                f"{len(self.names) - 1}"
            )
        return found


@dataclass(frozen=True)
class MaskedImages:
    """Images with masks, which are read on demand.

    Attributes:
        names: Names of the n masks in errors.
        picture: Function that returns an image of a number as a PIL image in RGB.
        mask: Function that returns its mask as a PIL image: class indices, or colours.
        size_of: Function that returns its width and height. Default: those of the picture.
    """

    names: Sequence[str]
    picture: Callable[[int], Any]
    mask: Callable[[int], Any]
    size_of: Callable[[int], tuple[int, int]] | None = None

    def size(self, row: int) -> tuple[int, int]:
        """Return width and height of the image of a number."""
        width, height = self.picture(row).size if self.size_of is None else self.size_of(row)
        return width, height

    def highest(self) -> int:
        """Return the highest class of all masks; 0 for masks that are void or coloured."""
        plain = (pixels[pixels != VOID] for pixels in self._masks() if pixels.ndim == 2)
        return max((int(pixels.max(initial=0)) for pixels in plain), default=0)

    def one_class(self) -> bool:
        """Say whether no mask has a colour or a class above 0; it reads until one has."""
        return all(px.ndim == 2 and np.isin(px, (0, VOID)).all() for px in self._masks())

    def _masks(self) -> Iterator[np.ndarray]:
        return (np.array(self.mask(row)) for row in range(len(self.names)))

    def images(self, size: tuple[int, int], indices: Sequence[int]) -> Tensor:
        """Return some images as bytes, n x 3 x H x W."""
        return torch.stack([fitted(self.picture(int(i)), *size) for i in indices])

    def targets(
        self, classes: MaskClasses, size: tuple[int, int], indices: Sequence[int]
    ) -> Tensor:
        """Return the classes of the pixels of some masks, int64, n x H x W.

        Raises:
            UserError: A mask has another aspect ratio than its image, or a value of no class.
        """
        found = torch.empty(len(indices), *size, dtype=torch.int64)
        for place, row in enumerate(map(int, indices)):
            where, mask = self.names[row], self.mask(row)
            check_shape(mask, self.size(row), where)
            found[place] = torch.from_numpy(classes.read(fitted_mask(mask, size), where))
        return found

    def split(self, classes: MaskClasses, size: tuple[int, int]) -> Split:
        """Return the images as a split."""
        labels = torch.zeros(len(self.names), dtype=torch.int64)
        return Split(labels, partial(self.images, size), partial(self.targets, classes, size))


def masked(
    name: str,
    parts: Sequence[MaskedImages],
    img_size: int | None,
    classes: MaskClasses | None = None,
    normalisation: Normalisation = IMAGENET_NORMALISATION,
) -> Dataset:
    """Return images with masks as a data set.

    Args:
        name: Name of the data set.
        parts: Images for training, and perhaps for testing; without the latter, a random 20 % are
            held out.
        img_size: Height in pixels. None: that of the first image.
        classes: The K classes. Default: they are counted from all masks.
        normalisation: Mean and deviation of each channel. Default: those of ImageNet.

    Raises:
        UserError: There are too few images or classes.
    """
    if classes is None:
        classes = numbered_classes(parts)
    if len(classes.names) < 2:
        raise UserError(f"the masks of {name} have one class")
    if not classes.colours and all(part.one_class() for part in parts):
        raise UserError(
            f"the masks of {name} hold class 0 and void (255) alone; if 255 is a class, write a "
            f"colour of each class into {NAMES[0]}, such as 'object 255 255 255'"
        )
    held = hold_out_any(name, len(parts[0].names)) if len(parts) == 1 else None
    width, height = parts[0].size(int(held[0][0]) if held else 0)
    side = img_size or height
    across = max(1, round(width * side / height))
    splits = [part.split(classes, (side, across)) for part in parts]
    if held:
        splits = [subset(splits[0], chosen) for chosen in held]
    facts = classes.names, side, *normalisation
    return Dataset(name, *facts, *splits, width=across, task="segmentation")


def numbered_classes(parts: Sequence[MaskedImages]) -> MaskClasses:
    """Return the classes up to the highest that occurs in a mask, named by their numbers."""
    highest = max(part.highest() for part in parts)
    return MaskClasses(tuple(f"class {label}" for label in range(highest + 1)), {})


def check_shape(mask: Any, of: tuple[int, int], where: str) -> None:
    """Check that a mask has the aspect ratio of its image.

    Args:
        mask: PIL image.
        of: Width and height of the image as it is seen, rotated as its EXIF says.
        where: Name of the mask in the error.

    Raises:
        UserError: It has another one.
    """
    if _alike(mask.size, of):
        return
    width, height = of
    swapped = _alike(mask.size[::-1], of)
    turned = "; if its EXIF turns the image, turn the mask, too" if swapped else ""
    raise UserError(
        f"{where} has {mask.width} x {mask.height} pixels, its image {width} x {height}{turned}"
    )


def _alike(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return abs(one[0] * other[1] - one[1] * other[0]) <= max(other)


def fitted_mask(mask: Any, size: tuple[int, int]) -> Any:
    """Cut and resize a mask to height and width in pixels as its image, without a new value."""
    from PIL import Image, ImageOps

    return ImageOps.fit(mask, size[::-1], Image.Resampling.NEAREST)
