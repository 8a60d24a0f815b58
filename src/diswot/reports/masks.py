"""Masks of test images, drawn in the colours of their classes.

Letters: B images, K classes, H x W pixels, h x w positions of the logits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diswot.observation.rows import resized_logits
from diswot.reports.drawing import GREY, Colour, Drawing
from diswot.reports.pictures import picture


def predicted_masks(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the class of the highest logit, B x K x h x w, at each pixel, B x H x W."""
    height, width = targets.shape[1:]
    return resized_logits(logits, (height, width)).argmax(1)


def coloured(mask: Tensor, palette: list[Colour]) -> Tensor:
    """Return a mask, H x W, as an image, 3 x H x W of 0 to 1; pixels without a class are grey."""
    colours = torch.tensor([*palette, GREY])
    return colours[mask.long()].permute(2, 0, 1)  # IGNORED, -1, is the last


def draw_mask(pixels: Tensor, mask: Tensor, palette: list[Colour]) -> str:
    """Draw a mask, H x W, without its image, 3 x H x W, as a PNG data URI."""
    return picture(coloured(mask, palette), smooth=False)


def present(masks: Tensor) -> set[int]:
    """Return the classes of masks; `IGNORED` for pixels without a class."""
    return set(torch.unique(masks).tolist())


MASKS = Drawing(
    name="masks",
    note="",
    measured="Intersection over union",
    grey="void",
    plain=True,
    as_targets=predicted_masks,
    draw=draw_mask,
    present=present,
)
