"""Folders of images in one folder a class."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from diswot.data.dataset import Dataset, Split, hold_out
from diswot.data.decode import IMAGENET_NORMALISATION, fitted, opened, side_of
from diswot.data.image_files import files_below, files_in, is_image, subfolders
from diswot.data.split_folders import split_folders
from diswot.errors import UserError

_log = logging.getLogger("diswot")

LabelledPath = tuple[str, int]


class _Scanned(NamedTuple):
    """Folder of one folder a class, in the order of the names."""

    path: Path
    classes: tuple[str, ...]
    samples: list[LabelledPath]
    others: list[str]


def folder(name: str, *, img_size: int | None) -> Dataset:
    """Return the images in a folder, normalised with ImageNet's statistics.

    The folder holds one folder a class, or holds such folders in a training and a test split; see
    `split_folders`. Without a test split, a stratified 20 % is held out. With a test split alone,
    there are no training images. One line of the log counts the files that are left out. Without a
    size, S is the shorter side of the first image, at most 224.

    Raises:
        UserError: There are too few images, the splits are incomplete, or the test split has other
            classes.
    """
    classes, train, test = _parts(Path(name))
    first = (train or test)[0][0]
    side = img_size or side_of(opened(first))
    splits = [image_split(samples, side) for samples in (train, test)]
    return Dataset(name, classes, side, *IMAGENET_NORMALISATION, *splits)


def _parts(root: Path) -> tuple[tuple[str, ...], list[LabelledPath], list[LabelledPath]]:
    """Return the classes, the samples for training and the samples for testing."""
    places = split_folders(root)
    train, test = (None if path is None else _scan(path) for path in places[:2])
    scanned = [part for part in (train, test) if part is not None]
    note_others(root, [path for part in scanned for path in part.others], places.unused)
    if train is None or test is None:
        only = scanned[0]
        if train is None:
            return only.classes, [], only.samples
        labels = np.array([label for _, label in only.samples])
        kept, held = ([only.samples[i] for i in part] for part in hold_out(labels, only.classes))
        return only.classes, kept, held
    if differing := sorted({*train.classes} ^ {*test.classes}):
        raise UserError(
            f"{train.path} and {test.path} hold different classes, such as {differing[0]}"
        )
    return train.classes, train.samples, test.samples


def _scan(path: Path) -> _Scanned:
    """Return the images of a folder, with at least two classes and an image in each."""
    inner = subfolders(path)
    found = [files_below(each) for each in inner]
    if not any(each.images for each in found):
        raise UserError(f"no images in {path}: it needs one folder of images a class")
    for each, files in zip(inner, found, strict=True):
        if not files.images:
            held = f"; it holds {Path(files.others[0]).name}" if files.others else ""
            raise UserError(f"no images in {each}, the folder of a class{held}")
    if len(inner) < 2:
        name = inner[0].name
        hint = f"; if {name} holds the classes, name {inner[0]}" if subfolders(inner[0]) else ""
        raise UserError(f"{path} has one class, {name}, and needs at least 2{hint}")
    _refuse_two_levels(path, inner)
    samples = [(image, label) for label, files in enumerate(found) for image in files.images]
    others = [str(path / name) for name in files_in(path)]
    others += [name for files in found for name in files.others]
    return _Scanned(path, tuple(each.name for each in inner), samples, others)


def _refuse_two_levels(path: Path, classes: Sequence[Path]) -> None:
    """Refuse folders that hold the same two folders or more and no image, as unnamed splits do."""
    held = {tuple(each.name for each in subfolders(folder)) for folder in classes}
    inner = next(iter(held))
    flat = any(is_image(name) for folder in classes for name in files_in(folder))
    if len(held) == 1 and len(inner) > 1 and not flat:
        raise UserError(
            f"{path}: each folder, such as {classes[0].name}, holds the same folders, such as "
            f"{inner[0]}, and either may be the classes; name one with --data, rename two to train "
            "and test, or move the images of each class directly into its folder"
        )


def note_others(root: Path, files: Sequence[str], folders: Sequence[Path] = ()) -> None:
    """Log in one line which files and folders of a data set are left out.

    The files are no images, or lie beside the folders of the classes; the folders lie beside the
    splits.
    """
    parts = []
    if files:
        count = "1 file" if len(files) == 1 else f"{len(files):,} files"
        parts.append(f"{count}, such as {Path(files[0]).relative_to(root)}")
    parts += [f"the folder {path.name}" for path in folders]
    if parts:
        _log.warning("%s: left out %s", root, " and ".join(parts))


def image_split(samples: Sequence[LabelledPath], side: int) -> Split:
    """Return image files with their labels, each fitted to a square of `side` pixels."""
    paths = [path for path, _ in samples]
    labels = torch.tensor([label for _, label in samples], dtype=torch.int64)
    return Split(labels, partial(read_images, paths, side))


def read_images(paths: Sequence[str], side: int, indices: Sequence[int]) -> Tensor:
    """Read the image files of some numbers, each fitted to a square; return bytes, n x 3 x S x S.

    Raises:
        UserError: A file cannot be read as an image.
    """
    return torch.stack([fitted(opened(paths[index]), side) for index in indices])
