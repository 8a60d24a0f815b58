"""Decoding of image files to RGB bytes."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diswot.errors import UserError

_TURNED = (5, 6, 7, 8)  # orientations of EXIF that swap width and height
LARGEST = 224  # default limit of the image size, in pixels
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def opened(source: str | bytes, name: str) -> Any:
    """Decode an image to RGB, rotated as its EXIF says and without transparency.

    Args:
        source: Path or bytes of an image file.
        name: Name of the image in an error.

    Raises:
        UserError: The image is damaged, too large, or has more than 8 bits a channel.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(BytesIO(source) if isinstance(source, bytes) else source) as image:
            if image.mode[0] in "IF":
                raise UserError(f"{name} has more than 8 bits a pixel; convert it first")
            ImageOps.exif_transpose(image, in_place=True)
            plain = image.convert("RGBA") if "transparency" in image.info else image
            return plain.convert("RGB")
    except UserError:
        raise
    except MemoryError:
        raise
    except Exception as error:  # a damaged file makes a decoder raise anything
        raise UserError(f"{name} cannot be read as an image") from error


def size_of(source: str | bytes, name: str | None = None) -> tuple[int, int]:
    """Return width and height of an image, rotated as its EXIF says, without decoding it.

    Args:
        source: Path or bytes of an image file.
        name: Name of the image in an error. Default: the path.

    Raises:
        UserError: The image is damaged.
    """
    from PIL import ExifTags, Image

    try:
        with Image.open(BytesIO(source) if isinstance(source, bytes) else source) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation) in _TURNED
            return image.size[::-1] if turned else image.size
    except MemoryError:
        raise
    except Exception as error:  # a damaged file makes a decoder raise anything
        raise UserError(f"{name or source!s} cannot be read as an image") from error


def opened_mask(source: str | bytes, name: str | None = None) -> Any:
    """Decode a mask without a new value: class indices, or the indices or colours of a palette.

    A mask is for its image as it is seen. It is rotated if it has an EXIF of its own.

    Args:
        source: Path or bytes of the mask.
        name: Name of the mask in an error. Default: the path.

    Raises:
        UserError: The mask is damaged, or has more than 8 bits a channel.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(BytesIO(source) if isinstance(source, bytes) else source) as mask:
            if mask.mode[0] in "IF":
                raise UserError(
                    f"{name or source!s} has more than 8 bits a pixel; convert it first"
                )
            ImageOps.exif_transpose(mask, in_place=True)
            mask.load()
            return mask if mask.mode in ("L", "P") else mask.convert("RGB")
    except (UserError, MemoryError):
        raise
    except Exception as error:  # a damaged file makes a decoder raise anything
        raise UserError(f"{name or source!s} cannot be read as a mask") from error


def fitted(image: Any, height: int, width: int | None = None) -> Tensor:
    """Resize an image to cover H x W pixels and crop the centre; return bytes, 3 x H x W.

    Args:
        image: Decoded image.
        height: Height in pixels, H.
        width: Width in pixels, W. Default: H.
    """
    from PIL import ImageOps

    pixels = np.array(ImageOps.fit(image, (width or height, height)))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def inner_size(of: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """Return height and width of an image that is resized to fit into H x W pixels.

    Args:
        of: Width and height of the image.
        size: H and W.
    """
    scale = min(size[1] / of[0], size[0] / of[1])
    down, across = round(of[1] * scale), round(of[0] * scale)
    return min(size[0], max(1, down)), min(size[1], max(1, across))


def padded(image: Any, size: tuple[int, int], colour: tuple[int, int, int]) -> Tensor:
    """Resize an image to fit into H x W pixels, at the top left; return bytes, 3 x H x W.

    Args:
        image: Decoded image.
        size: Height and width in pixels.
        colour: Colour of the space below or beside the image.
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
