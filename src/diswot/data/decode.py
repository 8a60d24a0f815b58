"""Image files, decoded: RGB bytes, the right way up."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diswot.errors import UserError

LARGEST = 224  # pixels, unless a size is given
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def opened(source: str | bytes, name: str) -> Any:
    """Decode an image to RGB, turned as its EXIF says; what is transparent in its own colour.

    Args:
        source: Path, or the bytes of a file.
        name: What to call it in an error.

    Raises:
        UserError: It is damaged, no image, too large, or has more than 8 bits a channel.
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
    except Exception as error:  # a damaged file makes a decoder raise whatever comes
        raise UserError(f"{name} cannot be read as an image") from error


def fitted(image: Any, side: int) -> Tensor:
    """Bytes, 3 x S x S: the shorter side is brought to S pixels, then the centre cut out."""
    from PIL import ImageOps

    pixels = np.array(ImageOps.fit(image, (side, side)))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def side_of(image: Any) -> int:
    """S for a set whose first image this is: its shorter side, at most `LARGEST`."""
    width, height = image.size
    return min(LARGEST, int(width), int(height))
