"""Folders of images in one folder a class, as torchvision's ImageFolder reads them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diswot.data.dataset import Dataset, Split, hold_out
from diswot.data.decode import IMAGENET_MEAN, IMAGENET_STD, fitted, opened, side_of
from diswot.errors import UserError

TEST_FOLDERS = ("test", "val", "valid", "validation")

Sample = tuple[str, int]


def folder(name: str, *, img_size: int | None) -> Dataset:
    """Return the images in a folder, normalised with ImageNet's statistics.

    Args:
        name: Path of a folder that holds one folder a class, or holds such folders in `train` and
            in one of `TEST_FOLDERS`. Without a test folder, a stratified 20 % is held out. With a
            test folder alone, there are no training images.
        img_size: Height and width in pixels, S. None: the shorter side of the first image, at most
            224.

    Raises:
        UserError: There are too few images, or the test folder has other classes.
    """
    classes, train, test = _parts(Path(name))
    first = (train or test)[0][0]
    side = img_size or side_of(opened(first, first))
    splits = [_split(samples, side) for samples in (train, test)]
    return Dataset(name, classes, side, IMAGENET_MEAN, IMAGENET_STD, *splits)


def _parts(root: Path) -> tuple[tuple[str, ...], list[Sample], list[Sample]]:
    """Return the classes, the samples for training and the samples for testing."""
    apart = (root / "train").is_dir()
    held = next((root / n for n in TEST_FOLDERS if (root / n).is_dir()), None)
    if held is not None and not apart and len([p for p in root.iterdir() if p.is_dir()]) == 1:
        test = _scan(held)
        return tuple(test.classes), [], test.samples
    train = _scan(root / "train" if apart else root)
    if held is None or not apart:
        parts = hold_out(np.array(train.targets))
        kept, tested = ([train.samples[i] for i in part] for part in parts)
        return tuple(train.classes), kept, tested
    test = _scan(held)
    if differing := sorted(set(train.classes) ^ set(test.classes)):
        raise UserError(f"{root}/train and {held} hold different classes, such as {differing[0]}")
    return tuple(train.classes), train.samples, test.samples


def _scan(path: Path) -> Any:
    """Return the ImageFolder of a path, with at least two classes and an image in each."""
    from torchvision.datasets import ImageFolder

    try:
        found = ImageFolder(str(path), allow_empty=True)
    except OSError as error:
        raise UserError(f"no images in {path}: it needs one folder of images a class") from error
    filled = {label for _, label in found.samples}
    if not filled:
        raise UserError(f"no images in {path}: it needs one folder of images a class")
    for label, class_name in enumerate(found.classes):
        if label not in filled:
            raise UserError(f"no images in {path / class_name}, the folder of a class")
    if len(filled) < 2:
        raise UserError(f"{path} has one class, {found.classes[0]}, and needs at least 2")
    return found


def _split(samples: Sequence[Sample], side: int) -> Split:
    paths = [path for path, _ in samples]
    labels = torch.tensor([label for _, label in samples], dtype=torch.int64)
    return Split(labels, partial(read_images, paths, side))


def read_images(paths: Sequence[str], side: int, indices: Sequence[int]) -> Tensor:
    """Read some of the image files, each fitted to a square; return bytes, n x 3 x S x S.

    Args:
        paths: Paths of all images.
        side: Height and width in pixels, S.
        indices: Numbers of the images to read.

    Raises:
        UserError: A file cannot be read as an image.
    """
    images = torch.empty(len(indices), 3, side, side, dtype=torch.uint8)
    for image, index in zip(images, indices, strict=True):
        image.copy_(fitted(opened(paths[index], paths[index]), side))
    return images
