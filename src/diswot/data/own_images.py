"""Images as a user's data set returns them: PIL images, arrays or tensors.

Letters: C channels, H x W pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Subset

from diswot.errors import UserError

SLACK = 1e-3  # by which a float image may leave 0 to 1, from rounding

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]  # mean and deviation of each channel


def undivided(data: Any) -> Any:
    """Return the data set of which a `Subset` is a part, or the data set itself."""
    return undivided(data.dataset) if isinstance(data, Subset) else data


def normalisation_of(data: Any) -> Normalisation | None:
    """Return mean and deviation of torchvision's `Normalize` at the end of the transforms.

    Args:
        data: A map data set.

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
    """Return an image of any form as a PIL image in RGB.

    Args:
        image: A PIL image, an array of bytes, or a tensor.
        normalisation: Mean and deviation by which a tensor is normalised; None if it is not.

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
    if image.mode[0] in "IF":
        raise UserError("more than 8 bits a pixel; convert it first")
    plain = image.convert("RGBA") if "transparency" in image.info else image
    return plain.convert("RGB")


def _bytes(image: Tensor, normalisation: Normalisation | None) -> Tensor:
    """Return a tensor C x H x W as bytes.

    Raises:
        UserError: It has another shape, or other values than bytes or floats from 0 to 1.
    """
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise UserError(f"a tensor must be 3 x H x W or 1 x H x W, not {tuple(image.shape)}")
    if image.dtype == torch.uint8:
        return image
    if not image.is_floating_point():
        raise UserError(f"a tensor must have bytes or floats, not {image.dtype}")
    if normalisation is not None:
        mean, std = (torch.tensor(each).view(-1, 1, 1) for each in normalisation)
        image = image * std[: len(image)] + mean[: len(image)]
    low, high = float(image.min()), float(image.max())
    if low < -SLACK or high > 1 + SLACK:
        raise UserError(
            f"its values are {low:.3g} to {high:.3g}, not 0 to 1: leave the normalisation out, and "
            "name mean and std (--mean, --std)"
        )
    return (image * 255).round().clamp(0, 255).to(torch.uint8)
