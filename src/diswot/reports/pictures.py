"""Small pictures as data URIs, so that a page needs no image files."""

from __future__ import annotations

import base64
import io

import matplotlib
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

SIDE = 96  # width or height of a picture in pixels, the larger of the two


def evenly_spread(total: int, count: int) -> list[int]:
    """Return at most `count` of the numbers below `total`, spread evenly."""
    places = torch.linspace(0, total - 1, min(count, total), dtype=torch.float64)
    return [int(place) for place in places.round()]


def picture(pixels: Tensor, *, smooth: bool = True) -> str:
    """Encode an image, 3 x H x W of 0 to 1, as a PNG data URI; its longer side gets `SIDE` pixels.

    An image of at most half that side, or one that is not `smooth`, is resized without smoothing.
    """
    return encoded(resized(pixels, SIDE, smooth=smooth))


def resized(pixels: Tensor, side: int, *, smooth: bool = True) -> Image.Image:
    """Return an image whose longer side has `side` pixels."""
    values = (pixels.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    image = Image.fromarray(values)
    longest = max(image.size)
    averaged = smooth and longest > side // 2
    width, height = (max(1, round(side * each / longest)) for each in image.size)
    method = Image.Resampling.BOX if averaged else Image.Resampling.NEAREST
    return image.resize((width, height), method)


def encoded(image: Image.Image) -> str:
    """Encode an image as a PNG data URI."""
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def overlay(pixels: Tensor, activation: Tensor) -> str:
    """Draw a class activation map, h x w, over its image, 3 x S x S, in grey, as a PNG data URI.

    The map is scaled to its largest value. Where it is zero, the grey image shows unchanged.
    """
    large = interpolate(pixels[None], (SIDE, SIDE), mode="nearest")[0]
    heat = interpolate(activation[None, None].float(), (SIDE, SIDE), mode="bilinear")[0, 0]
    heat = heat.clamp_min(0) / max(float(heat.max()), torch.finfo(torch.float32).tiny)
    colours = matplotlib.colormaps["inferno"](heat.numpy())[..., :3]
    warm = torch.from_numpy(colours.astype(np.float32)).permute(2, 0, 1)
    grey = large.mean(0, keepdim=True).expand(3, -1, -1)
    share = 0.85 * heat.sqrt()
    return picture(grey * (1 - share) + warm * share)
