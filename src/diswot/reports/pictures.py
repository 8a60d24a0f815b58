"""Small pictures as data URIs, to be shown in a page without files beside it."""

from __future__ import annotations

import base64
import io

import matplotlib
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

SIDE = 96  # pixels of a picture


def picture(pixels: Tensor) -> str:
    """An image, 3 x S x S of 0 to 1, as a PNG of a data URI; small ones in whole squares."""
    values = (pixels.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    image = Image.fromarray(values)
    small = max(image.size) <= SIDE // 2
    image = image.resize((SIDE, SIDE), Image.Resampling.NEAREST if small else Image.Resampling.BOX)
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def overlay(pixels: Tensor, activation: Tensor) -> str:
    """A class activation map, h x w, drawn over its image in grey.

    The map is scaled to its own largest value; where it is zero, the image stays as it is.
    """
    large = interpolate(pixels[None], (SIDE, SIDE), mode="nearest")[0]
    heat = interpolate(activation[None, None].float(), (SIDE, SIDE), mode="bilinear")[0, 0]
    heat = heat.clamp_min(0) / max(float(heat.max()), torch.finfo(torch.float32).tiny)
    colours = matplotlib.colormaps["inferno"](heat.numpy())[..., :3]
    warm = torch.from_numpy(colours.astype(np.float32)).permute(2, 0, 1)
    grey = large.mean(0, keepdim=True).expand(3, -1, -1)
    share = 0.85 * heat.sqrt()
    return picture(grey * (1 - share) + warm * share)
