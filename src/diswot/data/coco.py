"""Detection data in the JSON of COCO, with the usual folders around it."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from diswot.data.boxes import BoxedImages, array, boxed, corners, image_files, train_and_test
from diswot.data.dataset import Dataset
from diswot.data.decode import size_of
from diswot.data.image_files import subfolders
from diswot.data.split_folders import split_of
from diswot.errors import UserError
from diswot.utils.untrusted import number

_log = logging.getLogger("diswot")

Entry = dict[str, Any]

IMAGES = ("images", "data", "JPEGImages", "imgs")
FOLDER = "annotations"  # of the JSON files; they may be in the folder of the data set itself
_OTHER = re.compile("captions|keypoints|panoptic|stuff|image_info|unlabel")  # COCO's other files
_LISTS = re.compile(rb'"(images|annotations|categories)"\s*:\s*\[')
_NAMED = {"images": "file_name", "categories": "name"}
_LOOKED = 100  # images that are looked for to find their folder
_LARGEST_SIDE = 1e6  # pixels that a file may state
_HEAD = 1 << 16  # bytes of a JSON file in which one of its lists begins


def is_coco(root: Path) -> bool:
    """Say whether a folder holds the JSON of COCO, in any of the layouts of `coco`."""
    return root.is_dir() and bool(_annotations(root))


def coco(name: str, *, img_size: int | None) -> Dataset:
    """Return a folder with the JSON of COCO as a data set for detection.

    The JSON files are in `annotations`, such as `instances_train2017.json`, or in the folder
    itself, or each in the folder of its split, such as `train/_annotations.coco.json`. A file
    without the name of a split holds all images, of which a random 20 % are held out. The images
    are in a folder of the split's name, perhaps in `images`; or in `images`; or beside the file.
    Classes are those of the training file, in the order of its list; a category without boxes of
    which others are a part is none, as Roboflow adds one.

    Raises:
        UserError: A file cannot be read, or names no image that is there.
    """
    root = Path(name)
    files = [_File.read(root, path) for path in train_and_test(root, _annotations(root))]
    used = set[str]().union(*(each.used() for each in files))
    names = files[0].categories.values()
    classes = [each for each in names if each in used or each not in files[0].parents]
    numbers = {each: index for index, each in enumerate(classes)}
    return boxed(name, classes, [each.boxed_images(numbers) for each in files], img_size)


def _annotations(root: Path) -> dict[str, Path]:
    """Return the JSON file of each split; a file for all images is that of `train`."""
    for inner in (root / FOLDER, root):
        found = list(_coco_files(inner))
        named = [path for path in found if path.name.startswith("instances")] or found
        splits = {split: path for path in reversed(named) if (split := split_of(path.stem))}
        if splits or len(named) == 1:
            return splits or {"train": named[0]}
    folders = ((split_of(path.name), path) for path in subfolders(root))
    alone = {split: [*_coco_files(path)] for split, path in folders if split}
    return {split: paths[0] for split, paths in alone.items() if len(paths) == 1}


def _coco_files(path: Path) -> Iterator[Path]:
    """Yield the JSON files in a folder that have one of COCO's lists."""
    for each in sorted(path.glob("*.json")):
        if each.is_file() and not _OTHER.search(each.name):
            with each.open("rb") as file:
                if _LISTS.search(file.read(_HEAD)):
                    yield each


@dataclass(frozen=True)
class _File:
    """A JSON file of COCO.

    Attributes:
        path: Path of the file.
        folder: Folder of the images.
        images: Entries of the images by their numbers.
        categories: Names of the categories by their numbers.
        parents: Names that other categories have as their super-category.
        boxes: Entries of the boxes.
    """

    path: Path
    folder: Path
    images: Mapping[Any, Entry]
    categories: Mapping[Any, str]
    parents: frozenset[str]
    boxes: Sequence[Entry]

    @classmethod
    def read(cls, root: Path, path: Path) -> _File:
        """Read a file.

        Raises:
            UserError: It is no JSON, lacks one of the lists, or names no image that is there.
        """
        try:
            facts = json.loads(path.read_bytes(), object_hook=_without_outlines)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} cannot be read as JSON: {error}") from error
        images, categories = (_numbered(facts, key, path) for key in _NAMED)
        names = {key: each["name"] for key, each in categories.items()}
        if len({*names.values()}) < len(names):
            raise UserError(f"{path} has two categories of one name")
        above = (e.get("supercategory") for e in categories.values())
        parents = frozenset(
            str(parent)
            for parent, name in zip(above, names.values(), strict=True)
            if parent != name
        )
        folder = _image_folder(root, path, [each["file_name"] for each in images.values()])
        return cls(path, folder, images, names, parents, _entries(facts, "annotations", path))

    def used(self) -> set[str]:
        """Return the names of the categories that have a box.

        Raises:
            UserError: A box has no category.
        """
        found = {}
        for each in self.boxes:
            key = each.get("category_id")
            if not isinstance(key, int | str) or key not in self.categories:
                raise UserError(f"{self._named(each)} has no known category, but {key!r}")
            found[key] = self.categories[key]
        return {*found.values()}

    def boxed_images(self, classes: Mapping[str, int]) -> BoxedImages:
        """Return the images that are there with their boxes; one line counts the others.

        Raises:
            UserError: A box is no box, or of a class that is not known.
        """
        boxes = self._boxes(classes)
        paths = {key: self.folder / each["file_name"] for key, each in self.images.items()}
        there = {key: str(path) for key, path in paths.items() if os.path.isfile(path)}
        if missing := [str(path) for key, path in paths.items() if key not in there]:
            count = f"{len(missing):,} of {len(paths):,} images"
            _log.warning(
                "%s: left out %s that are not there, such as %s", self.path, count, missing[0]
            )
        sizes = [_size(self.images[key]) or size_of(path) for key, path in there.items()]
        return image_files([*there.values()], sizes, [array(boxes[key]) for key in there])

    def _boxes(self, classes: Mapping[str, int]) -> dict[Any, list[tuple[float, ...]]]:
        """Return the boxes by the number of their image."""
        found: dict[Any, list[tuple[float, ...]]] = {key: [] for key in self.images}
        for each in self.boxes:
            name = self.categories[each["category_id"]]
            if name not in classes:
                raise UserError(f"{self._named(each)} is {name}, which is none of the classes")
            box = corners(each.get("bbox"), self._named(each))
            image = each.get("image_id")
            if not isinstance(image, int | str) or image not in found:
                raise UserError(f"{self._named(each)} is of no image of the list, but of {image!r}")
            crowd = float(bool(each.get("iscrowd")))
            found[image].append((*box, classes[name], crowd))
        return found

    def _named(self, entry: Entry) -> str:
        return f"{self.path}: the box {entry.get('id')!r}"


def _without_outlines(entry: Entry) -> Entry:
    """Drop the outlines of an object, which need most of the memory."""
    entry.pop("segmentation", None)
    return entry


def _entries(facts: Any, key: str, path: Path) -> list[Entry]:
    found = facts.get(key) if isinstance(facts, dict) else None
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise UserError(f"{path} has no list of {key}, as the JSON of COCO has")
    return found


def _numbered(facts: Any, key: str, path: Path) -> dict[Any, Entry]:
    """Return the entries of a list by their numbers, each with a name."""
    found: dict[Any, Entry] = {}
    for each in _entries(facts, key, path):
        number, name = each.get("id"), each.get(_NAMED[key])
        if not isinstance(number, int | str) or number in found or not isinstance(name, str):
            raise UserError(f"{path}: {key} need an id of their own and a {_NAMED[key]}")
        if key == "images" and (os.path.isabs(name) or ".." in PurePath(name).parts):
            raise UserError(f"{path}: the image {name} is outside the folder")
        found[number] = each
    return found


def _image_folder(root: Path, path: Path, names: Sequence[str]) -> Path:
    """Return the first of the usual folders in which one of the first images is.

    Raises:
        UserError: There is none.
    """
    split = split_of(path.stem)
    stem = path.stem.removeprefix("instances_")
    likely = [stem, *([] if split is None else [split]), *(["valid"] if split == "val" else [])]
    inside = [root / above / name for name in likely for above in (".", *IMAGES)]
    inside += [path.parent, *(root / name for name in IMAGES), root, path.parent.parent]
    inside += [path.parent / name for name in IMAGES]
    for folder in inside:
        if any(os.path.isfile(folder / name) for name in names[:_LOOKED]):
            return folder
    raise UserError(f"{path}: its images are in none of the usual folders, such as {inside[0]}")


def _size(entry: Entry) -> tuple[int, int] | None:
    """Return the width and the height that a file states; None if it states none of an image."""
    width, height = (number(entry.get(key)) for key in ("width", "height"))
    known = width and height and 1 <= min(width, height) <= max(width, height) <= _LARGEST_SIDE
    return (int(width), int(height)) if width and height and known else None
