"""Folders of images and masks, for segmentation."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from diswot.data.dataset import Dataset
from diswot.data.decode import opened, opened_mask, size_of
from diswot.data.image_files import by_name, files_below, lines, subfolders
from diswot.data.masked import (
    NAMES,
    Colour,
    MaskClasses,
    MaskedImages,
    masked,
    numbered_classes,
)
from diswot.data.split_folders import split_folders
from diswot.errors import UserError

_log = logging.getLogger("diswot")

IMAGES = ("images", "image", "imgs", "img", "jpegimages")
MASKS = ("masks", "mask", "labels", "annotations", "segmentationclass", "gt")
_VOC = ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation")


def is_masks(path: Path) -> bool:
    """Say whether a folder holds images and masks for segmentation, perhaps in splits."""
    if not path.is_dir():
        return False
    inner = subfolders(path)
    return bool(_pair_folders(path) or (inner and all(map(_pair_folders, inner))))


def masks(name: str, *, img_size: int | None) -> Dataset:
    """Return a folder of images and masks, normalised with ImageNet's statistics.

    An image and its mask have the same path but for the ending, in the folders `images` and
    `masks`. The folder holds these, or such pairs in a training and a test split, or the folders
    of Pascal VOC. Without a test split a random 20 % of the images are held out. All images get
    the aspect ratio of the first one, by a cut around the centre.

    Raises:
        UserError: There are too few pairs, or the classes are not known.
    """
    root = Path(name)
    parts = _parts(root)
    return masked(name, parts, img_size, _classes(root, parts))


def _parts(root: Path) -> list[MaskedImages]:
    """Return the images for training, and those for testing if there is a split for them."""
    if is_voc_masks(root):
        return [_voc(root, split) for split in ("train", "val")]
    if found := _pair_folders(root):
        return [_paired(*found)]
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
    return parts


def _pair_folders(path: Path) -> tuple[Path, Path] | None:
    """Return the folders of the images and of the masks, if a folder holds both."""
    by_name = {each.name.casefold(): each for each in subfolders(path)}
    images, labels = ([by_name[n] for n in names if n in by_name] for names in (IMAGES, MASKS))
    return (images[0], labels[0]) if images and labels else None


def is_voc_masks(root: Path) -> bool:
    """Say whether a folder has the folders of Pascal VOC, with masks."""
    return all((root / part).is_dir() for part in _VOC)


def _voc(root: Path, split: str) -> MaskedImages:
    listing = root / _VOC[2] / f"{split}.txt"
    if not listing.is_file():
        raise UserError(f"no such file: {listing}")
    wanted = set(lines(listing))
    return _paired(root / _VOC[0], root / _VOC[1], wanted)


def _paired(images: Path, labels: Path, wanted: set[str] | None = None) -> MaskedImages:
    """Return the images that have a mask; one line of the log counts those without a partner."""
    first, second = (_by_place(path) for path in (images, labels))
    if wanted is not None:
        first, second = ({s: p for s, p in each.items() if s in wanted} for each in (first, second))
    for here, there, kind in ((first, second, "mask"), (second, first, "image")):
        if lone := sorted(here.keys() - there.keys()):
            count = f"{len(lone):,} without {'a' if kind == 'mask' else 'an'} {kind}"
            _log.warning("%s: left out %s, such as %s", images.parent, count, here[lone[0]])
    places = sorted(first.keys() & second.keys())
    if not places:
        raise UserError(f"no image in {images} has a mask of the same name in {labels}")
    pictures, masks = ([each[place] for place in places] for each in (first, second))
    return MaskedImages(
        masks,
        lambda row: opened(pictures[row]),
        lambda row: opened_mask(masks[row]),
        lambda row: size_of(pictures[row]),
    )


def _by_place(folder: Path) -> dict[str, str]:
    """Return images by their path in a folder, without the ending."""
    images = files_below(folder).images
    return by_name((str(Path(each).relative_to(folder).with_suffix("")), each) for each in images)


def _classes(root: Path, parts: Sequence[MaskedImages]) -> MaskClasses:
    for name in NAMES:
        if (root / name).is_file():
            return _listed(root / name)
    found = numbered_classes(parts)
    if len(found.names) < 2:
        raise UserError(f"the masks in {root} have one class; write the classes into {NAMES[0]}")
    return found


def _listed(path: Path) -> MaskClasses:
    """Read a file of a class a line: a name, and perhaps its colour as three numbers."""
    names: list[str] = []
    colours: dict[Colour, int] = {}
    for line in lines(path):
        words = line.split()
        colour = words[-3:] if len(words) > 3 and all(w.isdecimal() for w in words[-3:]) else []
        if colour:
            red, green, blue = map(int, colour)
            colours[red, green, blue] = len(names)
        names.append(" ".join(words[: -3 if colour else None]))
    if len(names) < 2 or (colours and len(colours) < len(names)):
        raise UserError(f"{path} needs at least 2 classes, and a colour of each or of none")
    return MaskClasses(tuple(names), colours)
