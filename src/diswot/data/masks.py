"""Folders of images and masks, for segmentation.

Letters: n images, H x W pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diswot.data.dataset import UNLABELLED, Dataset, Split, hold_out_any
from diswot.data.decode import IMAGENET_MEAN, IMAGENET_STD, fitted, opened, opened_mask, size_of
from diswot.data.image_files import files_below, subfolders
from diswot.data.split_folders import split_folders
from diswot.errors import UserError

_log = logging.getLogger("diswot")

IMAGES = ("images", "image", "imgs", "img", "jpegimages")
MASKS = ("masks", "mask", "labels", "annotations", "segmentationclass", "gt")
NAMES = ("classes.txt", "labels.txt")  # one class a line, with its colour if masks are coloured
VOID = 255  # value of a pixel without a class, in Pascal VOC and elsewhere
_VOC = ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation")

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
        colour of no class.

        Raises:
            UserError: A value or a colour is that of no class.
        """
        pixels = np.array(mask)
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
class _Pairs:
    """Paths of images and of their masks, in the same order."""

    images: tuple[str, ...]
    masks: tuple[str, ...]

    def some(self, chosen: np.ndarray) -> _Pairs:
        return _Pairs(*(tuple(each[i] for i in chosen) for each in (self.images, self.masks)))


def is_masks(path: Path) -> bool:
    """Say whether a folder holds images and masks for segmentation, perhaps in splits."""
    if not path.is_dir():
        return False
    if is_voc_masks(path) or _pair_folders(path):
        return True
    inner = subfolders(path)
    return bool(inner) and all(map(_pair_folders, inner))


def masks(name: str, *, img_size: int | None) -> Dataset:
    """Return a folder of images and masks, normalised with ImageNet's statistics.

    An image and its mask have the same name but for the ending. The folder holds `images` and
    `masks`, or such pairs in a training and a test split, or the folders of Pascal VOC. Without a
    test split a random 20 % of the images are held out. All images get the aspect ratio of the
    first one, by a cut around the centre.

    Args:
        name: Path of the folder.
        img_size: Height in pixels. None: that of the first image.

    Raises:
        UserError: There are too few pairs, or the classes are not known.
    """
    root = Path(name)
    train, test = _splits(root)
    if test is None:
        train, test = map(train.some, hold_out_any(name, len(train.images)))
    classes = _classes(root, (*train.masks, *test.masks))
    width, height = size_of(train.images[0])
    side = img_size or height
    across = max(1, round(width * side / height))
    splits = [_split(pairs, classes, (side, across)) for pairs in (train, test)]
    look = IMAGENET_MEAN, IMAGENET_STD
    return Dataset(name, classes.names, side, *look, *splits, width=across, task="segmentation")


def _splits(root: Path) -> tuple[_Pairs, _Pairs | None]:
    if is_voc_masks(root):
        return _voc(root, "train"), _voc(root, "val")
    if found := _pair_folders(root):
        return _paired(*found), None
    places = split_folders(root)
    if places.train is None or places.test is None:
        raise UserError(f"{root} needs a training and a test split of images and masks")
    if places.unused:
        _log.warning("%s: left out the folder %s", root, ", ".join(p.name for p in places.unused))
    parts = []
    for place in (places.train, places.test):
        folders = _pair_folders(place)
        assert folders is not None
        parts.append(_paired(*folders))
    return parts[0], parts[1]


def _pair_folders(path: Path) -> tuple[Path, Path] | None:
    """Return the folders of the images and of the masks, if a folder holds both."""
    by_name = {each.name.casefold(): each for each in subfolders(path)}
    images, labels = ([by_name[n] for n in names if n in by_name] for names in (IMAGES, MASKS))
    return (images[0], labels[0]) if images and labels else None


def is_voc_masks(root: Path) -> bool:
    """Say whether a folder has the folders of Pascal VOC, with masks."""
    return all((root / part).is_dir() for part in _VOC)


def _voc(root: Path, split: str) -> _Pairs:
    listing = root / _VOC[2] / f"{split}.txt"
    if not listing.is_file():
        raise UserError(f"no such file: {listing}")
    wanted = set(listing.read_text().split())
    return _paired(root / _VOC[0], root / _VOC[1], wanted)


def _paired(images: Path, labels: Path, wanted: set[str] | None = None) -> _Pairs:
    """Return the images that have a mask; one line of the log counts those without a partner."""
    first, second = (_by_stem(path) for path in (images, labels))
    if wanted is not None:
        first, second = ({s: p for s, p in each.items() if s in wanted} for each in (first, second))
    for here, there, kind in ((first, second, "mask"), (second, first, "image")):
        if lone := sorted(here.keys() - there.keys()):
            count = f"{len(lone):,} without {'a' if kind == 'mask' else 'an'} {kind}"
            _log.warning("%s: left out %s, such as %s", images.parent, count, here[lone[0]])
    stems = sorted(first.keys() & second.keys())
    if not stems:
        raise UserError(f"no image in {images} has a mask of the same name in {labels}")
    return _Pairs(*(tuple(each[stem] for stem in stems) for each in (first, second)))


def _by_stem(path: Path) -> dict[str, str]:
    return {Path(each).stem: each for each in files_below(path).images}


def _classes(root: Path, paths: Sequence[str]) -> MaskClasses:
    for name in NAMES:
        if (root / name).is_file():
            return _listed(root / name)
    highest = max(_highest(path) for path in paths)
    if highest < 1:
        raise UserError(f"the masks in {root} have one class; write the classes into {NAMES[0]}")
    return MaskClasses(tuple(f"class {label}" for label in range(highest + 1)), {})


def _listed(path: Path) -> MaskClasses:
    """Read a file of a class a line: a name, and perhaps its colour as three numbers."""
    names: list[str] = []
    colours: dict[Colour, int] = {}
    for line in path.read_text().splitlines():
        words = line.split()
        if not words:
            continue
        colour = words[-3:] if len(words) > 3 and all(w.isdecimal() for w in words[-3:]) else []
        if colour:
            red, green, blue = map(int, colour)
            colours[red, green, blue] = len(names)
        names.append(" ".join(words[: -3 if colour else None]))
    if len(names) < 2 or (colours and len(colours) < len(names)):
        raise UserError(f"{path} needs at least 2 classes, and a colour of each or of none")
    return MaskClasses(tuple(names), colours)


def _highest(path: str) -> int:
    """Return the highest class of a mask; -1 if all pixels are void."""
    pixels = np.array(opened_mask(path))
    if pixels.ndim > 2:
        return 0
    known = pixels[pixels != VOID]
    return int(known.max()) if known.size else -1


def _split(pairs: _Pairs, classes: MaskClasses, size: tuple[int, int]) -> Split:
    everyone = torch.zeros(len(pairs.images), dtype=torch.int64)
    read = partial(_read_images, pairs.images, size)
    return Split(everyone, read, partial(_read_masks, pairs, classes, size))


def _read_images(paths: Sequence[str], size: tuple[int, int], indices: Sequence[int]) -> Tensor:
    images = [fitted(opened(paths[index], paths[index]), *size) for index in indices]
    return torch.stack(images)


def _read_masks(
    pairs: _Pairs, classes: MaskClasses, size: tuple[int, int], indices: Sequence[int]
) -> Tensor:
    """Return the classes of the pixels of some masks, int64, n x H x W.

    Raises:
        UserError: A mask has another aspect ratio than its image, or a value of no class.
    """
    found = torch.empty(len(indices), *size, dtype=torch.int64)
    for place, index in enumerate(indices):
        path = pairs.masks[index]
        mask = opened_mask(path)
        check_shape(mask, size_of(pairs.images[index]), path)
        found[place] = torch.from_numpy(classes.read(fitted_mask(mask, size), path))
    return found


def check_shape(mask: Any, of: tuple[int, int], where: str) -> None:
    """Check that a mask has the aspect ratio of its image.

    Args:
        mask: PIL image.
        of: Width and height of the image as it is seen, rotated as its EXIF says.
        where: Name of the mask in the error.

    Raises:
        UserError: It has another one.
    """
    width, height = of
    if _alike(mask.size, of):
        return
    swapped = _alike(mask.size[::-1], of)
    turned = "; if its EXIF turns the image, turn the mask, too" if swapped else ""
    raise UserError(
        f"{where} has {mask.width} x {mask.height} pixels, its image {width} x {height}{turned}"
    )


def _alike(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return abs(one[0] * other[1] - one[1] * other[0]) <= max(other)


def fitted_mask(mask: Any, size: tuple[int, int]) -> Any:
    """Cut and resize a mask as its image, without a new value.

    Args:
        mask: PIL image of one byte a pixel, or of colours.
        size: Height and width in pixels.
    """
    from PIL import Image, ImageOps

    return ImageOps.fit(mask, size[::-1], Image.Resampling.NEAREST)
