"""Decoding of image files to RGB bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diswot.errors import UserError

_TURNED = (5, 6, 7, 8)  # orientations of EXIF that swap width and height
LARGEST = 224  # default limit of the image size, in pixels

Normalisation = tuple[tuple[float, ...], tuple[float, ...]]  # mean and deviation of each channel
IMAGENET_NORMALISATION: Normalisation = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

EncodedImage = str | bytes  # path or bytes of an image file


@contextmanager
def _decoding(source: EncodedImage, name: str | None, what: str) -> Iterator[Any]:
    """Open an image file; any error names the image, by default by its path."""
    from PIL import Image

    try:
        with Image.open(BytesIO(source) if isinstance(source, bytes) else source) as image:
            yield image
    except MemoryError:
        raise
    except UserError as error:
        raise UserError(f"{name or source!s} has {error}") from error
    except Exception as error:  # a damaged file makes a decoder raise anything
        raise UserError(f"{name or source!s} cannot be read as {what}") from error


def refuse_deep(image: Any) -> None:
    """Refuse an image with more than 8 bits a channel."""
    if image.mode[0] in "IF":
        raise UserError("more than 8 bits a pixel; convert it first")


def opaque(image: Any) -> Any:
    """Return a PIL image in RGB, without transparency."""
    plain = image.convert("RGBA") if "transparency" in image.info else image
    return plain.convert("RGB")


def opened_image(source: EncodedImage, name: str | None = None) -> Any:
    """Decode an image to RGB, rotated as its EXIF says and without transparency.

    Args:
        source: Path or bytes of an image file.
        name: Name of the image in an error. Default: the path.

    Raises:
        UserError: The image is damaged, too large, or has more than 8 bits a channel.
    """
    from PIL import ImageOps

    with _decoding(source, name, "an image") as image:
        refuse_deep(image)
        ImageOps.exif_transpose(image, in_place=True)
        return opaque(image)


def size_of(source: EncodedImage, name: str | None = None) -> tuple[int, int]:
    """Return width and height of an image, rotated as its EXIF says, without decoding it.

    Arguments and errors are those of `opened`.
    """
    from PIL import ExifTags

    with _decoding(source, name, "an image") as image:
        turned = image.getexif().get(ExifTags.Base.Orientation) in _TURNED
        width, height = image.size
        return (height, width) if turned else (width, height)


def opened_mask(source: EncodedImage, name: str | None = None) -> Any:
    """Decode a mask without a new value: class indices, or the indices or colours of a palette.

    A mask is for its image as it is seen. It is rotated if it has an EXIF of its own.

    Arguments and errors are those of `opened`.
    """
    from PIL import ImageOps

    with _decoding(source, name, "a mask") as mask:
        refuse_deep(mask)
        ImageOps.exif_transpose(mask, in_place=True)
        mask.load()
        return mask if mask.mode in ("L", "P") else mask.convert("RGB")


def fitted(image: Any, height: int, width: int | None = None) -> Tensor:
    """Resize an image to cover H x W pixels, by default H x H, and crop the centre.

    Returns:
        Bytes, 3 x H x W.
    """
    from PIL import ImageOps

    pixels = np.array(ImageOps.fit(image, (width or height, height)))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def inner_size(of: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """Return height and width of an image that is resized to fit into H x W pixels.

    `of` is its width and height, `size` H and W.
    """
    scale = min(size[1] / of[0], size[0] / of[1])
    down, across = round(of[1] * scale), round(of[0] * scale)
    return min(size[0], max(1, down)), min(size[1], max(1, across))


def padded(image: Any, size: tuple[int, int], colour: tuple[int, int, int]) -> Tensor:
    """Resize an image to fit into H x W pixels, at the top left; return bytes, 3 x H x W.

    The space below or beside the image has the colour.
    """
    down, across = inner_size(image.size, size)
    whole = torch.tensor(colour, dtype=torch.uint8).view(3, 1, 1).repeat(1, *size)
    inner = image if image.size == (across, down) else image.resize((across, down))
    whole[:, :down, :across] = torch.from_numpy(np.array(inner)).permute(2, 0, 1)
    return whole


def side_of(image: Any) -> int:
    """Return the default S of a data set from its first image: the shorter side, at most 224."""
    width, height = image.size
    return min(LARGEST, int(width), int(height))
