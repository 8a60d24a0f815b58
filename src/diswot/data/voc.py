"""Detection data in the XML of Pascal VOC: a file with the objects of each image."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from diswot.data.boxes import BoxedImages, array, boxed, image_files, train_and_test
from diswot.data.dataset import Dataset
from diswot.data.decode import size_of
from diswot.data.image_files import by_name, files_below, lines, subfolders
from diswot.data.split_folders import split_of
from diswot.errors import UserError

_log = logging.getLogger("diswot")

IMAGES, ANNOTATIONS, LISTS = "JPEGImages", "Annotations", "ImageSets/Main"
NAMES = "classes.txt"  # one class a line, to fix their order
_NOTES = ("annotations", "annotation", "xml", "xmls", "labels")
_HEAD = 4096  # bytes of an annotation in which its first tag is
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


class _Place(NamedTuple):
    """Folder of the images and annotations of a split, and the list of its images if there is one.

    Without a list, all images with an annotation are meant.
    """

    folder: Path
    listing: Path | None = None


def is_voc(root: Path) -> bool:
    """Say whether a folder has the XML of Pascal VOC, in any of the layouts of `voc`."""
    return root.is_dir() and bool(_places(root))


def voc(name: str, *, img_size: int | None) -> Dataset:
    """Return a folder with the XML of Pascal VOC as a data set for detection.

    In the folders of Pascal VOC, `ImageSets/Main/train.txt` lists the training images, or else
    `trainval.txt`; `test.txt` lists the test images, or else `val.txt`. Elsewhere images and
    annotations of the same names are in folders such as `train` and `valid`, or in one for all.
    Without test images, a random 20 % are held out. Classes are sorted by name, unless a file
    `classes.txt` lists them. Coordinates of Pascal VOC count pixels from 1.

    Raises:
        UserError: A list names no image, or an annotation cannot be read.
    """
    root = Path(name)
    splits = [_annotated_images(place) for place in train_and_test(root, _places(root))]
    classes = _classes(root, splits)
    return boxed(name, tuple(classes), [_part(split, classes) for split in splits], img_size)


def _places(root: Path) -> dict[str, _Place]:
    """Return the images of each split; those without a split are that of `train`."""
    if all((root / each).is_dir() for each in (IMAGES, ANNOTATIONS, LISTS)):
        lists = {path.stem: _Place(root, path) for path in (root / LISTS).glob("*.txt")}
        wanted = ("train", "val", "test") if "train" in lists else ("trainval", "test")
        found = {split: lists[split] for split in wanted if split in lists}
        if wanted[0] in found:
            return {"train": found.pop(wanted[0]), **found}
    named = ((split_of(path.name), path) for path in subfolders(root))
    splits = {split: _Place(path) for split, path in named if split and _has_notes(path)}
    return splits or ({"train": _Place(root)} if _has_notes(root) else {})


def _has_notes(folder: Path) -> bool:
    """Say whether a folder has annotations, directly or in a folder for them."""
    inner = [path for path in subfolders(folder) if path.name.casefold() in _NOTES]
    for each in (folder, *inner):
        for path in each.glob("*.xml"):
            with path.open("rb") as file:
                return b"<annotation" in file.read(_HEAD)
    return False


def _annotated_images(place: _Place) -> list[Annotated]:
    """Return the images of a split; one line of the log counts those that are not there."""
    folder, listing = place
    within = [folder / each if listing else folder for each in (IMAGES, ANNOTATIONS)]
    images = by_name((Path(path).stem, path) for path in files_below(within[0]).images)
    others = files_below(within[1]).others
    notes = by_name((Path(path).stem, path) for path in others if path.lower().endswith(".xml"))
    stems = [*dict.fromkeys(lines(listing))] if listing else sorted(images.keys() | notes.keys())
    there = [stem for stem in stems if stem in images and stem in notes]
    if not there:
        raise UserError(f"{listing or folder} has no image with an annotation of the same name")
    if lone := [stem for stem in stems if stem not in images or stem not in notes]:
        _log.warning(
            "%s: left out %s without an image or an annotation, such as %s",
            *(listing or folder, f"{len(lone):,}", lone[0]),
        )
    return [annotated(notes[stem], images[stem]) for stem in there]


def annotated(note: str, image: str) -> Annotated:
    """Return an image with the objects of its annotation, a file of XML.

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
        dict.fromkeys(lines(listing))
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
