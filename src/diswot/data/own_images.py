"""Images as a user's data set returns them: PIL images, arrays or tensors.

Letters: N images, C channels, H x W pixels; S x S after they are fitted to a square.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, Subset

from diswot.data.decode import IMAGENET_NORMALISATION, Normalisation, fitted, opaque, refuse_deep
from diswot.errors import UserError, one_line

SLACK = 1e-3  # by which a float image may leave 0 to 1, from rounding
LOOKED = 4  # images that are read twice, to notice random transforms

_log = logging.getLogger("diswot")


@dataclass(frozen=True)
class OwnImages:
    """The images of a map data set.

    Attributes:
        name: Name of the data set, for errors.
        data: The map data set.
        normalisation: Mean and deviation by which its transforms normalise; None if they do not.
    """

    name: str
    data: Any
    normalisation: Normalisation | None

    @classmethod
    def of(cls, name: str, data: Any) -> OwnImages:
        """Look at a data set.

        Raises:
            UserError: It has no length or no images.
        """
        if isinstance(data, IterableDataset) or not hasattr(data, "__len__"):
            raise UserError(f"{name} has no length: name a map data set, whose images have numbers")
        if not len(data):
            raise UserError(f"{name} has no images")
        part = cls(name, data, normalisation_of(undivided(data)))
        part._warn_of_random_transforms()
        return part

    def __len__(self) -> int:
        return len(self.data)

    @property
    def mean_and_std(self) -> Normalisation:
        """Mean and deviation of each channel: those of the transforms, or else ImageNet's."""
        return self.normalisation or IMAGENET_NORMALISATION

    @property
    def names(self) -> list[str]:
        """Names of the classes that the data set lists; none if it lists none."""
        names = getattr(undivided(self.data), "classes", None)
        return list(map(str, names)) if isinstance(names, list | tuple) else []

    def _warn_of_random_transforms(self) -> None:
        """Read a few images twice: random transforms would alter test images, too."""
        few = range(min(LOOKED, len(self)))
        once, again = ([np.array(self.picture(i)) for i in few] for _ in range(2))
        if not all(map(np.array_equal, once, again)):
            _log.warning(
                "%s: an image differs when it is read again; leave random transforms out, since "
                "training images are altered by the recipe and test images must not be",
                self.name,
            )

    def item(self, index: int) -> tuple[Any, Any]:
        """Return an image with its label.

        Raises:
            UserError: There is no such pair.
        """
        try:
            found = self.data[index]
        except Exception as error:  # a user's data set may raise anything
            raise UserError(f"{self.name}: image {index}: {one_line(error)}") from error
        if not isinstance(found, tuple | list) or len(found) != 2:
            kind = type(found).__name__
            raise UserError(f"{self.name} must return pairs (image, label), not a {kind}")
        return found[0], found[1]

    def labels(self) -> np.ndarray:
        """Return the labels, N; the images are only read if the data set has no list of labels.

        Raises:
            UserError: A label is no whole number from 0.
        """
        found = _listed_labels(self.data)
        if found is None:
            found = [self.item(i)[1] for i in range(len(self))]
        labels = [_plain(each) for each in found]
        other = next((row for row, each in enumerate(labels) if not _is_label(each)), None)
        if other is not None:
            raise UserError(
                f"{self.name}: labels must be whole numbers from 0, and image {other} has "
                f"{' '.join(repr(labels[other]).split())}"
            )
        return np.array(labels, dtype=np.int64)

    def read(self, side: int, indices: Sequence[int]) -> Tensor:
        """Return some images as bytes, n x 3 x S x S."""
        return torch.stack([fitted(self.picture(int(i)), side) for i in indices])

    def picture(self, index: int) -> Any:
        """Return an image as a PIL image in RGB.

        Raises:
            UserError: It is no image of a known form.
        """
        return self.plain(self.item(index)[0], index)

    def plain(self, image: Any, index: int) -> Any:
        """Return an image of any form as a PIL image in RGB; errors and index as in `picture`."""
        try:
            return rgb(image, self.normalisation)
        except UserError as error:
            raise UserError(f"{self.name}: image {index}: {error}") from error


def _plain(label: Any) -> Any:
    """Return the number of a tensor of one element; any other label as it is."""
    return label.item() if isinstance(label, Tensor) and label.numel() == 1 else label


def _is_label(label: Any) -> bool:
    whole = isinstance(label, Integral) and not isinstance(label, bool)
    return whole and 0 <= label <= np.iinfo(np.int64).max


def _listed_labels(data: Any) -> list[Any] | None:
    """Return the labels that a data set lists, as torchvision's do; None if it does not."""
    if isinstance(data, Subset):
        listed = _listed_labels(data.dataset)
        return None if listed is None else [listed[i] for i in data.indices]
    labels = getattr(data, "targets", None)
    if not isinstance(labels, Collection) or getattr(data, "target_transform", None) is not None:
        return None
    return list(labels) if len(labels) == len(data) else None


def undivided(data: Any) -> Any:
    """Return the data set of which a `Subset` is a part, or the data set itself."""
    return undivided(data.dataset) if isinstance(data, Subset) else data


def normalisation_of(data: Any) -> Normalisation | None:
    """Return mean and deviation of torchvision's `Normalize` at the end of a data set's transforms.

    Returns:
        Three numbers each; None if the transforms end with another step.
    """
    transform = getattr(data, "transform", None)
    steps = list(getattr(transform, "transforms", [transform]))
    last = steps[-1] if steps else None
    if type(last).__name__ != "Normalize":
        return None
    mean, std = (tuple(map(float, getattr(last, key))) for key in ("mean", "std"))
    return (mean * 3, std * 3) if len(mean) == 1 else (mean, std)


def rgb(image: Any, normalisation: Normalisation | None) -> Any:
    """Return an image of any form as a PIL image in RGB; a tensor's normalisation is undone.

    Raises:
        UserError: It has another form.
    """
    from PIL import Image

    if isinstance(image, Tensor):
        image = _bytes(image, normalisation).permute(1, 2, 0).numpy()
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.shape[2:] not in ((), (1,), (3,), (4,)):
            raise UserError(f"an array must have bytes, H x W x 3, not {image.dtype} {image.shape}")
        image = Image.fromarray(image[..., 0] if image.shape[2:] == (1,) else image)
    if not isinstance(image, Image.Image):
        kind = type(image).__name__
        raise UserError(f"a {kind} is no image: return a PIL image, an array or a tensor")
    refuse_deep(image)
    return opaque(image)


def _bytes(image: Tensor, normalisation: Normalisation | None) -> Tensor:
    """Return a tensor C x H x W as bytes.

    Raises:
        UserError: It has another shape, or other values than bytes or floats from 0 to 1.
    """
    image = image.detach()
    if image.ndim != 3 or image.shape[0] not in (1, 3) or not image.numel():
        raise UserError(f"a tensor must be 3 x H x W or 1 x H x W, not {tuple(image.shape)}")
    if image.dtype == torch.uint8:
        return image
    if not image.is_floating_point():
        raise UserError(f"a tensor must have bytes or floats, not {image.dtype}")
    if normalisation is not None:
        mean, std = (torch.tensor(each).view(-1, 1, 1) for each in normalisation)
        image = image * std[: len(image)] + mean[: len(image)]
    low, high = float(image.min()), float(image.max())
    if not (low >= -SLACK and high <= 1 + SLACK):  # NaN is neither
        raise UserError(
            f"its values are {low:.3g} to {high:.3g}, not 0 to 1: leave the normalisation out, and "
            "name mean and std (--mean, --std)"
        )
    return (image * 255).round().clamp(0, 255).to(torch.uint8)
