"""Detection data in the text files of YOLO: a YAML of names, `labels` beside `images`."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diswot.data.boxes import BoxedImages, array, boxed, image_files, train_and_test
from diswot.data.dataset import Dataset
from diswot.data.decode import size_of
from diswot.data.image_files import files_below, lines, subfolders
from diswot.data.split_folders import split_of
from diswot.errors import UserError
from diswot.utils.optional_imports import imported

_log = logging.getLogger("diswot")

ENDINGS = (".yaml", ".yml")
IMAGES, LABELS = "images", "labels"
NAMES = "classes.txt"  # one class a line, where there is no YAML
_LIMIT = 2.0  # coordinates beyond are no shares of an image
_LARGEST = 1 << 20  # bytes of a YAML file that is looked at


@dataclass(frozen=True)
class _Listing:
    """What a YAML lists.

    Attributes:
        path: Path of the YAML, or of the file of names.
        folder: Folder that its paths begin at.
        names: Names of the K classes.
        splits: Paths of each split.
        points: Whether keypoints follow each box.
    """

    path: Path
    folder: Path
    names: tuple[str, ...]
    splits: Mapping[str, list[str]]
    points: bool = False


def is_yolo(path: Path) -> bool:
    """Say whether a path is a YAML of YOLO, or a folder in one of the layouts of `yolo`."""
    return _facts(path) is not None or _has_labels(path)


def yolo(name: str, *, img_size: int | None) -> Dataset:
    """Return data in the text files of YOLO, by its YAML or folder, as a data set for detection.

    The YAML has `names` and, for `train`, `val` and `test`, a folder of images, a text file that
    lists images, or a list of these. The label file of an image is in the folder `labels` that is
    beside the last folder `images` of its path, or else beside the image. An image without a label
    file has no boxes. Of an outline, the smallest box around it is taken. Keypoints, which the YAML
    announces by `kpt_shape`, are left out. Without a YAML, the
    names are in `classes.txt`, beside the folders `images` and `labels`; splits are folders in
    `images`, or a random 20 % are held out.

    Raises:
        UserError: A file cannot be read, or there are no images.
    """
    path = Path(name)
    found = _facts(path)
    listing = _unlisted(path) if found is None else _listing(*found)
    splits = {split: _images(listing, split) for split in listing.splits}
    parts = train_and_test(path, {split: each for split, each in splits.items() if each})
    return boxed(name, listing.names, [_part(each, listing) for each in parts], img_size)


def _facts(path: Path) -> tuple[Path, Mapping[str, Any]] | None:
    """Return the YAML that has names and training images, and its contents; None if none has."""
    yaml = imported("yaml", "YOLO", "")
    for each in sorted(path.iterdir()) if path.is_dir() else [path]:
        if each.suffix.lower() in ENDINGS and each.is_file() and each.stat().st_size < _LARGEST:
            try:
                facts = yaml.safe_load(each.read_bytes())
            except (yaml.YAMLError, ValueError, RecursionError) as error:
                if path.is_dir():
                    continue
                raise UserError(f"{each} cannot be read as YAML") from error
            if isinstance(facts, dict) and {"names", "train"} <= facts.keys():
                return each, facts
    return None


def _listing(path: Path, facts: Mapping[str, Any]) -> _Listing:
    """Check the contents of a YAML."""
    names = facts["names"]
    if isinstance(names, dict) and sorted(map(str, names)) == sorted(map(str, range(len(names)))):
        names = [names.get(i, names.get(str(i))) for i in range(len(names))]
    if not isinstance(names, list) or not names or len({*map(str, names)}) < len(names):
        raise UserError(f"{path}: names must list different classes, numbered from 0")
    splits = {}
    for split in ("train", "val", "test"):
        value = facts.get(split)
        paths = value if isinstance(value, list) else [value] if value else []
        if not all(isinstance(each, str) for each in paths):
            raise UserError(f"{path}: {split} must be a path, or a list of paths")
        if paths:
            splits[split] = paths
    stated = path.parent / str(facts.get("path") or ".")
    folder = stated if os.path.isdir(stated) else path.parent
    return _Listing(path, folder, tuple(map(str, names)), splits, "kpt_shape" in facts)


def _has_labels(path: Path) -> bool:
    """Say whether a folder has names, images, and text files as labels."""
    if not all((path / each).exists() for each in (NAMES, IMAGES, LABELS)):
        return False
    found = files_below(path / LABELS)
    return not found.images and any(each.endswith(".txt") for each in found.others)


def _unlisted(root: Path) -> _Listing:
    """Return the splits in the folder of images, or all images for training."""
    folders = {split_of(path.name): path.name for path in subfolders(root / IMAGES)}
    splits = {split: [f"{IMAGES}/{folder}"] for split, folder in folders.items() if split}
    return _Listing(root / NAMES, root, tuple(lines(root / NAMES)), splits or {"train": [IMAGES]})


def _images(listing: _Listing, split: str) -> list[str]:
    """Return the paths of the images of a split.

    Raises:
        UserError: The training images are not there. One line of the log notes other ones.
    """
    found: list[str] = []
    for each in listing.splits[split]:
        # Roboflow writes ../train/images for a folder beside the YAML.
        near = (listing.folder / each, listing.path.parent / each.lstrip("./"))
        place = next((path for path in near if os.path.exists(path)), None)
        if place is None:
            if split == "train":
                raise UserError(f"{listing.path}: no such folder or file for train: {near[0]}")
            _log.warning("%s: left out the split %s, as %s is not there", listing.path, split, each)
            return []
        found += files_below(place).images if place.is_dir() else _named(place, listing.folder)
    if not found and split == "train":
        raise UserError(f"{listing.path}: no images for train in {listing.splits[split][0]}")
    return found


def _named(path: Path, folder: Path) -> Iterator[str]:
    """Yield the paths of a text file that lists images."""
    for line in lines(path):
        place = (path.parent if line.startswith("./") else folder) / line
        if not os.path.isfile(place):
            raise UserError(f"{path} lists {line}, which is not there")
        yield str(place)


def _part(paths: list[str], listing: _Listing) -> BoxedImages:
    sizes = [size_of(path) for path in paths]
    boxes = [
        array([*_boxes(_label_file(path), size, listing)])
        for path, size in zip(paths, sizes, strict=True)
    ]
    return image_files(paths, sizes, boxes)


def _label_file(image: str) -> str:
    stem = os.path.splitext(os.path.abspath(image))[0] + ".txt"
    before, found, after = stem.rpartition(f"{os.sep}{IMAGES}{os.sep}")
    return f"{before}{os.sep}{LABELS}{os.sep}{after}" if found else stem


def _boxes(path: str, size: tuple[int, int], listing: _Listing) -> Iterator[tuple[float, ...]]:
    """Yield the boxes of a label file in pixels; none if there is no file.

    Raises:
        UserError: A line is no class with a box or an outline in shares of the image.
    """
    if not os.path.isfile(path):
        return
    text = Path(path).read_text(encoding="utf-8-sig", errors="replace")
    for number, line in enumerate(text.splitlines(), 1):
        if not (words := line.split()):
            continue
        try:
            label, *values = map(float, words)
        except ValueError as error:
            raise UserError(f"{path}: line {number} has something other than numbers") from error
        if label not in range(len(listing.names)):
            raise UserError(
                f"{path}: line {number} has the class {words[0]}, and {listing.path.name} names "
                f"0 to {len(listing.names) - 1}"
            )
        if listing.points:
            values = values[:4]
        if any(not math.isfinite(v) or abs(v) > _LIMIT for v in values):
            raise UserError(f"{path}: line {number} is no share of the image's width and height")
        if len(values) == 4:
            x, y, half_x, half_y = values[0], values[1], values[2] / 2, values[3] / 2
            corners = (x - half_x, y - half_y, x + half_x, y + half_y)
        elif len(values) >= 6 and len(values) % 2 == 0:
            across, down = values[::2], values[1::2]
            corners = (min(across), min(down), max(across), max(down))
        else:
            raise UserError(f"{path}: line {number} has {len(words)} numbers, and a box has 5")
        yield (*(c * s for c, s in zip(corners, (*size, *size), strict=True)), label, 0)
