"""Training images without labels, from a folder: a student learns from its teacher's outputs alone.

Their label is -1 (`UNLABELLED`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from diswot.data.dataset import UNLABELLED, Dataset, Split
from diswot.data.folder import read_images
from diswot.errors import UserError


def with_unlabelled(data: Dataset, path: str | Path) -> Dataset:
    """Add the images in a folder, at any depth, to the training images.

    Args:
        data: With training images, perhaps none of them labelled. Its size and normalisation hold
            for the added images, too.
        path: Folder of image files. The names of its subfolders mean nothing.

    Raises:
        UserError: There are no images in the folder.
    """
    assert data.train is not None
    train, paths = data.train, _image_files(Path(path))
    count = len(train)

    def read(indices: Sequence[int]) -> Tensor:
        images = torch.empty(len(indices), *data.image_shape, dtype=torch.uint8)
        chosen = torch.as_tensor(indices)
        known = chosen < count
        if known.any():
            images[known] = train.read(chosen[known].tolist())
        images[~known] = read_images(paths, data.size, (chosen[~known] - count).tolist())
        return images

    labels = torch.cat((train.labels, torch.full((len(paths),), UNLABELLED)))
    return replace(data, train=Split(labels, read))


def _image_files(root: Path) -> list[str]:
    """Return the paths of all image files in a folder, in a fixed order."""
    from torchvision.datasets.folder import IMG_EXTENSIONS

    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in IMG_EXTENSIONS)
    if not files:
        raise UserError(f"no images in {root}, the folder of images without labels")
    return [str(path) for path in files]
