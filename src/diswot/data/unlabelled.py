"""Training images without labels, from a folder: a student learns from its teacher's outputs alone.

Their label is -1 (`UNLABELLED`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Generator, Tensor

from diswot.data.dataset import HELD_OUT, SPLIT_SEED, UNLABELLED, Dataset, Split
from diswot.data.decode import IMAGENET_NORMALISATION, opened, side_of
from diswot.data.folder import image_split, note_others, read_images
from diswot.data.image_files import files_below
from diswot.errors import UserError


def unlabelled_alone(
    path: str | Path, classes: Sequence[str], *, img_size: int | None = None
) -> Dataset:
    """Return the images in a folder, at any depth, none of which has a label.

    A random 20 % is held out as test images. The names of subfolders mean nothing. The classes are
    the teacher's. Without a size, S is the shorter side of the first image, at most 224.

    Raises:
        UserError: There are fewer than five images in the folder.
    """
    paths = _image_files(Path(path))
    held = int(HELD_OUT * len(paths))
    if not held:
        raise UserError(f"{path} has {len(paths)} images, and a training needs at least 5")
    side = img_size or side_of(opened(paths[0]))
    order = torch.randperm(len(paths), generator=Generator().manual_seed(SPLIT_SEED)).tolist()
    train, test = (
        image_split([(paths[i], UNLABELLED) for i in part], side)
        for part in (sorted(order[held:]), order[:held])
    )
    return Dataset(str(path), tuple(classes), side, *IMAGENET_NORMALISATION, train, test)


def with_unlabelled(data: Dataset, path: str | Path) -> Dataset:
    """Add the images in a folder, at any depth, to the training images.

    The data's size and normalisation hold for the added images, too. The names of subfolders mean
    nothing.

    Raises:
        UserError: There are no images in the folder, or the data has masks or boxes.
    """
    assert data.train is not None
    if data.train.annotations is not None:
        raise UserError(f"{data.name} is data for {data.task}, which has no unlabelled images")
    train, paths = data.train, _image_files(Path(path))
    count = len(train)

    def read(indices: Sequence[int]) -> Tensor:
        images = torch.empty(len(indices), *data.image_shape, dtype=torch.uint8)
        chosen = torch.as_tensor(indices)
        known = chosen < count
        if known.any():
            images[known] = train.read(chosen[known].tolist())
        if not known.all():
            images[~known] = read_images(paths, data.size, (chosen[~known] - count).tolist())
        return images

    labels = torch.cat((train.labels, torch.full((len(paths),), UNLABELLED)))
    return replace(data, train=Split(labels, read))


def _image_files(root: Path) -> list[str]:
    """Return the paths of all image files in a folder, in a fixed order."""
    found = files_below(root)
    if not found.images:
        raise UserError(f"no images in {root}, the folder of images without labels")
    note_others(root, found.others)
    return sorted(found.images, key=Path)
