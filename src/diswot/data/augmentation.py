"""Random cuts, shifts, mirror images and blanks, a whole batch at once, on any device.

What is random is drawn apart from what is done with it: the numbers of a batch are the same
however many processes share it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn.functional import affine_grid, grid_sample, pad

STRETCH = 4 / 3  # the largest ratio of a cut's sides, as in Szegedy et al., CVPR 2015


@dataclass(frozen=True)
class Changes:
    """What may be done to an image.

    Attributes:
        crop: Largest shift in pixels, zeros coming in.
        area: Smallest share of the image that a random cut shows, brought to full size; 1: none.
        flip: Whether every other image is mirrored.
        cutout: Side in pixels of a square that is blanked; its centre may be anywhere.
    """

    crop: int = 0
    area: float = 1.0
    flip: bool = False
    cutout: int = 0


class Drawn(NamedTuple):
    """The random numbers of B images; None where nothing is done.

    Attributes:
        shifts: From 0 to twice the crop, B x 2, rows before columns.
        frames: Centres and half-sides of the cuts on the scale -1 to 1, B x 4: x, y, width, height.
        mirrored: B.
        holes: Centres in pixels, B x 2, rows before columns.
    """

    shifts: Tensor | None = None
    frames: Tensor | None = None
    mirrored: Tensor | None = None
    holes: Tensor | None = None


def some(drawn: Drawn, part: slice | Tensor) -> Drawn:
    """Return the random numbers of some of the images."""
    return Drawn(*(None if each is None else each[part] for each in drawn))


def draw(changes: Changes, count: int, side: int, generator: Generator) -> Drawn:
    """Draw for `count` images of `side` pixels; the generator is on the CPU."""
    shifts = frames = mirrored = holes = None
    if changes.crop:
        shifts = torch.randint(0, 2 * changes.crop + 1, (count, 2), generator=generator)
    if changes.area < 1:
        frames = _frames(changes.area, count, generator)
    if changes.flip:
        mirrored = torch.rand(count, generator=generator) < 0.5
    if changes.cutout:
        holes = torch.randint(0, side, (count, 2), generator=generator)
    return Drawn(shifts, frames, mirrored, holes)


def _frames(area: float, count: int, generator: Generator) -> Tensor:
    """Cuts of a random share of the area and ratio of the sides, at a random place within."""
    random = torch.rand(count, 4, generator=generator)
    share = area + (1 - area) * random[:, 0]
    stretch = STRETCH ** (random[:, 1] - 0.5)
    half = torch.stack((share.sqrt() * stretch, share.sqrt() / stretch), 1).clamp(max=1)
    return torch.cat(((2 * random[:, 2:] - 1) * (1 - half), half), 1)


def apply(images: Tensor, changes: Changes, drawn: Drawn) -> Tensor:
    """Do to B x C x S x S bytes, or floats, what was drawn for them."""
    device = images.device
    if drawn.frames is not None:
        images = _cut(images, drawn.frames.to(device))
    if drawn.shifts is not None:
        images = _shift(images, changes.crop, drawn.shifts.to(device))
    if drawn.mirrored is not None:
        mirrored = drawn.mirrored.to(device)[:, None, None, None]
        images = torch.where(mirrored, images.flip(3), images)
    if drawn.holes is not None:
        images = _blank(images, changes.cutout, drawn.holes.to(device))
    return images


def augment(images: Tensor, changes: Changes, generator: Generator) -> Tensor:
    """Draw and do at once."""
    return apply(images, changes, draw(changes, len(images), images.shape[-1], generator))


def _cut(images: Tensor, frames: Tensor) -> Tensor:
    x, y, width, height = frames.T
    none = torch.zeros_like(x)
    rows = torch.stack((width, none, x, none, height, y), 1).view(-1, 2, 3)
    grid = affine_grid(rows, list(images.shape), align_corners=False)
    cut = grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
    return cut if images.is_floating_point() else cut.round().to(images.dtype)


def _shift(images: Tensor, crop: int, shifts: Tensor) -> Tensor:
    count, side = len(images), images.shape[-1]
    span = torch.arange(side, device=images.device)
    rows = (shifts[:, :1] + span)[:, :, None]
    columns = (shifts[:, 1:] + span)[:, None, :]
    sample = torch.arange(count, device=images.device)[:, None, None]
    return pad(images, [crop] * 4)[sample, :, rows, columns].permute(0, 3, 1, 2)


def _blank(images: Tensor, cutout: int, holes: Tensor) -> Tensor:
    """Zeros in a square from `cutout // 2` before its centre on; DeVries and Taylor, 2017."""
    span = torch.arange(images.shape[-1], device=images.device)
    start = holes - cutout // 2
    inside = (span >= start[:, :, None]) & (span < start[:, :, None] + cutout)
    hole = inside[:, 0, :, None] & inside[:, 1, None, :]
    return images.masked_fill(hole[:, None], 0)
