"""Data sets of a user with masks: pairs (image, mask) as torchvision's return them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from diswot.data.dataset import Dataset
from diswot.data.masked import VOID, MaskClasses, MaskedImages, masked
from diswot.data.own_images import OwnImages
from diswot.errors import UserError


def has_mask(target: object) -> bool:
    """Say whether the target of an image is a mask: a PIL image, an array or a tensor."""
    from PIL import Image

    return isinstance(target, Image.Image) or (
        isinstance(target, np.ndarray | Tensor) and target.ndim > 1
    )


def own_masks(parts: Sequence[OwnImages], img_size: int | None) -> Dataset:
    """Return pairs (image, mask) as a data set for segmentation.

    A mask is a PIL image, or an array or a tensor of whole numbers, H x W or 1 x H x W. Of a
    palette image the indices count. 255, negative numbers and the index after the last class are
    void. The attribute `classes` of the data set names the classes; without it they are counted
    from the masks. The rest is as in `masked`.

    Raises:
        UserError: A mask has another form.
    """
    images = [
        MaskedImages(
            [f"the mask of {part.name}: image {row}" for row in range(len(part))],
            part.picture,
            partial(_mask, part),
        )
        for part in parts
    ]
    names = parts[0].names
    classes = MaskClasses(tuple(names), {}) if names else None
    return masked(parts[0].name, images, img_size, classes, parts[0].mean_and_std)


def _mask(part: OwnImages, index: int) -> Any:
    return plain_mask(part.item(index)[1], f"{part.name}: image {index}")


def plain_mask(mask: Any, where: str) -> Any:
    """Return a mask of any form as a PIL image of bytes; void pixels are 255.

    Raises:
        UserError: The mask is coloured, or holds no whole numbers below 256; the error begins with
            `where`.
    """
    from PIL import Image

    pixels = mask.cpu().numpy() if isinstance(mask, Tensor) else np.asarray(mask)
    pixels = pixels[0] if pixels.ndim == 3 and len(pixels) == 1 else pixels
    if pixels.ndim != 2:
        raise UserError(f"{where}: a mask must be H x W class indices, not {pixels.shape}")
    if pixels.dtype.kind not in "iub":
        raise UserError(f"{where}: a mask must hold whole numbers, not {pixels.dtype}")
    if pixels.size and pixels.max() > VOID:
        raise UserError(f"{where}: a mask must hold numbers up to {VOID}, not {pixels.max()}")
    return Image.fromarray(np.where(pixels < 0, VOID, pixels).astype(np.uint8))
