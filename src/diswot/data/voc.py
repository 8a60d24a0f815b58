"""Detection data in the folders of Pascal VOC: `JPEGImages`, `Annotations`, `ImageSets/Main`."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from diswot.data.boxes import BoxedImages, array, boxed, image_files, train_and_test
from diswot.data.dataset import Dataset
from diswot.data.decode import size_of
from diswot.data.image_files import is_image
from diswot.errors import UserError

_log = logging.getLogger("diswot")

IMAGES, ANNOTATIONS, LISTS = "JPEGImages", "Annotations", "ImageSets/Main"
NAMES = "classes.txt"  # one class a line, to fix their order
_TRAIN = ("train", "trainval")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class Object(NamedTuple):
    """An object of an image.

    Attributes:
        name: Name of its class.
        box: x1, y1, x2, y2 in pixels from 0.
        difficult: Whether it is difficult to see.
    """

    name: str
    box: tuple[float, ...]
    difficult: bool


class Annotated(NamedTuple):
    """An image file with its objects."""

    path: str
    size: tuple[int, int]
    objects: list[Object]


def is_voc(root: Path) -> bool:
    """Say whether a folder has the folders of Pascal VOC, with lists for detection."""
    return all((root / part).is_dir() for part in (IMAGES, ANNOTATIONS, LISTS)) and any(
        (root / LISTS / f"{name}.txt").is_file() for name in _TRAIN
    )


def voc(name: str, *, img_size: int | None) -> Dataset:
    """Return a folder of Pascal VOC as a data set for detection.

    `train.txt` lists the training images, or else `trainval.txt`; `test.txt` lists the test images,
    or else `val.txt`. Without these, a random 20 % of the images are held out. Classes are sorted
    by name, unless a file `classes.txt` lists them. Coordinates of Pascal VOC count pixels from 1.

    Args:
        name: Path of the folder.
        img_size: Height in pixels. None: that of the first image.

    Raises:
        UserError: A list names no image, or an annotation cannot be read.
    """
    root = Path(name)
    train, test = train_and_test(root, _lists(root))
    splits = [_listed(root, split) for split in (train, test) if split is not None]
    classes = _classes(root, splits)
    parts = [_part(split, classes) for split in splits]
    return boxed(name, tuple(classes), parts[0], parts[1] if test else None, img_size)


def _lists(root: Path) -> dict[str, str]:
    """Return the name of the list of each split."""
    listed = {path.stem for path in (root / LISTS).glob("*.txt")}
    if "train" in listed:
        return {split: split for split in ("train", "val", "test") if split in listed}
    return {"train": "trainval"} | ({"test": "test"} if "test" in listed else {})


def _listed(root: Path, split: str) -> list[Annotated]:
    """Return the images of a list; one line of the log counts those that are not there."""
    listing = root / LISTS / f"{split}.txt"
    stems = dict.fromkeys(
        filter(None, map(str.strip, listing.read_text(errors="replace").splitlines()))
    )
    images = _by_stem(root / IMAGES, is_image)
    notes = _by_stem(root / ANNOTATIONS, lambda name: name.lower().endswith(".xml"))
    there = [stem for stem in stems if stem in images and stem in notes]
    if not there:
        raise UserError(
            f"{listing} names no image that has a file in {IMAGES} and one in {ANNOTATIONS}"
        )
    if lone := [stem for stem in stems if stem not in images or stem not in notes]:
        _log.warning(
            "%s: left out %d without an image or an annotation, such as %s",
            listing, len(lone), lone[0],
        )  # fmt: skip
    return [annotated(notes[stem], images[stem]) for stem in there]


def _by_stem(path: Path, wanted: object) -> dict[str, str]:
    assert callable(wanted)
    names = sorted(name for name in os.listdir(path) if wanted(name))
    return {os.path.splitext(name)[0]: str(path / name) for name in names}


def annotated(note: str, image: str) -> Annotated:
    """Return an image with the objects of its annotation.

    Args:
        note: Path of a file of XML.
        image: Path of the image.

    Raises:
        UserError: The annotation cannot be read, or is for an image of another size.
    """
    root = _parsed(note)
    size = size_of(image)
    stated = tuple(_number(root, f"size/{side}", note, 0) for side in ("width", "height"))
    if all(stated) and stated != size:
        raise UserError(
            f"{note} is for an image of {stated[0]:g} x {stated[1]:g} pixels, and {image} has "
            f"{size[0]} x {size[1]}"
        )
    return Annotated(image, size, [_object(each, note) for each in root.iterfind("object")])


def _parsed(path: str) -> Element:
    """Read a file of XML without a document type, so that no entity is expanded."""
    text = Path(path).read_bytes()
    if b"<!DOCTYPE" in text or b"\0" in text:
        raise UserError(f"{path} has a document type or zero bytes, as no annotation has")
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise UserError(f"{path} cannot be read as XML: {error}") from error


def _object(found: Element, note: str) -> Object:
    name = (found.findtext("name") or "").strip()
    if not name:
        raise UserError(f"{note} has an object without a name")
    left, top, right, bottom = (_number(found, f"bndbox/{c}", note) for c in _CORNERS)
    box = (left - 1, top - 1, right, bottom)
    return Object(name, box, bool(_number(found, "difficult", note, 0)))


def _number(found: Element, tag: str, note: str, default: float | None = None) -> float:
    text = found.findtext(tag, "" if default is None else str(default))
    try:
        return float(text)
    except ValueError as error:
        raise UserError(f"{note}: {tag} is {text!r}, not a number") from error


def _classes(root: Path, splits: Iterable[Sequence[Annotated]]) -> Mapping[str, int]:
    """Return the number of each class by its name."""
    listing = root / NAMES
    names = (
        list(filter(None, map(str.strip, listing.read_text(errors="replace").splitlines())))
        if listing.is_file()
        else sorted({each.name for split in splits for image in split for each in image.objects})
    )
    return {name: number for number, name in enumerate(names)}


def _part(images: Sequence[Annotated], classes: Mapping[str, int]) -> BoxedImages:
    for image in images:
        for each in image.objects:
            if each.name not in classes:
                raise UserError(f"{image.path}: {each.name} is none of the classes in {NAMES}")
    boxes = [
        array([(*each.box, classes[each.name], each.difficult) for each in image.objects])
        for image in images
    ]
    return image_files([i.path for i in images], [i.size for i in images], boxes)
