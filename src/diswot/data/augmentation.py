"""Random crops, shifts, flips and cutout of a whole batch at once, on any device.

The random numbers are drawn separately from their use, so that the numbers of a batch do not depend
on the number of processes that share the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn.functional import affine_grid, grid_sample, pad

from diswot.data.dataset import UNLABELLED

LEAST_LEFT = 0.2  # share of a box's area that must remain in the image
STRETCH = 4 / 3  # the largest aspect ratio of a random crop, as in Szegedy et al., CVPR 2015


@dataclass(frozen=True)
class Augmentation:
    """Settings of the augmentation.

    Attributes:
        crop: Largest random shift in pixels, with zeros outside the image. 0, the default: no
            shift.
        area: Smallest share of the image in a random resized crop. 1, the default: no crop.
        flip: Whether half of the images are mirrored at random.
        cutout: Side of a random square of zeros, in pixels. 0, the default: no square.
    """

    crop: int = 0
    area: float = 1.0
    flip: bool = False
    cutout: int = 0


class AugmentationDraws(NamedTuple):
    """Random numbers of B images; None for an augmentation that is off.

    Attributes:
        shifts: Shifts from 0 to twice the crop, B x 2, rows before columns.
        frames: Crops as x, y, half-width and half-height on the scale -1 to 1, B x 4.
        mirrored: Whether each image is mirrored, B.
        holes: Centres of the squares of zeros in pixels, B x 2, rows before columns.
    """

    shifts: Tensor | None = None
    frames: Tensor | None = None
    mirrored: Tensor | None = None
    holes: Tensor | None = None


def select_draws(drawn: AugmentationDraws, part: slice | Tensor) -> AugmentationDraws:
    """Return the random numbers of some of the images."""
    return AugmentationDraws(*(None if each is None else each[part] for each in drawn))


def draw(
    changes: Augmentation, count: int, size: tuple[int, int], generator: Generator
) -> AugmentationDraws:
    """Draw the random numbers of B images of a height and width in pixels, on the CPU."""
    shifts = frames = mirrored = holes = None
    if changes.crop:
        shifts = torch.randint(0, 2 * changes.crop + 1, (count, 2), generator=generator)
    if changes.area < 1:
        frames = _frames(changes.area, count, generator)
    if changes.flip:
        mirrored = torch.rand(count, generator=generator) < 0.5
    if changes.cutout:
        holes = torch.randint(0, max(size), (count, 2), generator=generator)
        holes = holes * torch.tensor(size) // max(size)
    return AugmentationDraws(shifts, frames, mirrored, holes)


def _frames(area: float, count: int, generator: Generator) -> Tensor:
    """Draw crops of random area, aspect ratio and position."""
    random = torch.rand(count, 4, generator=generator)
    share = area + (1 - area) * random[:, 0]
    stretch = STRETCH ** (random[:, 1] - 0.5)
    half = torch.stack((share.sqrt() * stretch, share.sqrt() / stretch), 1).clamp(max=1)
    return torch.cat(((2 * random[:, 2:] - 1) * (1 - half), half), 1)


def apply(images: Tensor, changes: Augmentation, drawn: AugmentationDraws) -> Tensor:
    """Apply the drawn augmentation to images, B x C x H x W bytes or floats."""
    moved = _moved(images, changes, drawn, "bilinear", 0)
    if drawn.holes is None:
        return moved
    return _blank(moved, changes.cutout, drawn.holes.to(images.device))


def apply_to_masks(masks: Tensor, changes: Augmentation, drawn: AugmentationDraws) -> Tensor:
    """Move the classes of pixels, B x H x W, as `apply` moves the images.

    A pixel from outside the image has no class. A square of zeros keeps the classes.
    """
    return _moved(masks[:, None], changes, drawn, "nearest", UNLABELLED)[:, 0]


def _moved(
    images: Tensor, changes: Augmentation, drawn: AugmentationDraws, mode: str, outside: int
) -> Tensor:
    """Crop, shift and mirror images; `outside` is the value of a pixel from outside the image."""
    device = images.device
    if drawn.frames is not None:
        images = _cut(images, drawn.frames.to(device), mode)
    if drawn.shifts is not None:
        images = _shift(images, changes.crop, drawn.shifts.to(device), outside)
    if drawn.mirrored is not None:
        mirrored = drawn.mirrored.to(device)[:, None, None, None]
        images = torch.where(mirrored, images.flip(3), images)
    return images


def apply_to_boxes(
    targets: Tensor, changes: Augmentation, drawn: AugmentationDraws, size: tuple[int, int]
) -> Tensor:
    """Move boxes, B x M x 6, as `apply` moves images of a height and width, and clip them.

    A box becomes padding if less than 20 % of its area remains, or less than a pixel of its width
    or its height. A square of zeros keeps the boxes.
    """
    device = targets.device
    sides = torch.tensor(size[::-1]).to(targets)  # x before y, as in a box
    corners = targets[..., :4].reshape(*targets.shape[:2], 2, 2)
    whole = _area(corners)
    if drawn.frames is not None:
        middle, half = drawn.frames.to(device)[:, None, None].chunk(2, -1)
        corners = ((2 * corners / sides - 1 - middle) / half + 1) / 2 * sides
        whole = whole / half.prod(-1)[..., 0]
        corners = torch.minimum(corners.clamp(min=0), sides)
    if drawn.shifts is not None:
        shifts = drawn.shifts.to(device).flip(1)[:, None, None]
        corners = torch.minimum((corners + changes.crop - shifts).clamp(min=0), sides)
    if drawn.mirrored is not None:
        x, y = corners.unbind(-1)
        turned = torch.stack((sides[0] - x.flip(-1), y), -1)
        corners = torch.where(drawn.mirrored.to(device)[:, None, None, None], turned, corners)
    kept = ((corners[..., 1, :] - corners[..., 0, :]) >= 1).all(-1)
    kept &= (_area(corners) >= LEAST_LEFT * whole) & (targets[..., 4] != UNLABELLED)
    padding = torch.zeros_like(targets)
    padding[..., 4] = UNLABELLED
    moved = torch.cat((corners.flatten(-2), targets[..., 4:]), -1)
    return torch.where(kept[..., None], moved, padding)


def _area(corners: Tensor) -> Tensor:
    return (corners[..., 1, :] - corners[..., 0, :]).prod(-1)


def _cut(images: Tensor, frames: Tensor, mode: str) -> Tensor:
    x, y, width, height = frames.T
    none = torch.zeros_like(x)
    rows = torch.stack((width, none, x, none, height, y), 1).view(-1, 2, 3)
    grid = affine_grid(rows, list(images.shape), align_corners=False)
    cut = grid_sample(images.float(), grid, mode, padding_mode="border", align_corners=False)
    return cut if images.is_floating_point() else cut.round().to(images.dtype)


def _shift(images: Tensor, crop: int, shifts: Tensor, outside: int) -> Tensor:
    down, across = (torch.arange(side, device=images.device) for side in images.shape[2:])
    rows = (shifts[:, :1] + down)[:, :, None]
    columns = (shifts[:, 1:] + across)[:, None, :]
    sample = torch.arange(len(images), device=images.device)[:, None, None]
    padded = pad(images, [crop] * 4, value=outside)
    return padded[sample, :, rows, columns].permute(0, 3, 1, 2)


def _blank(images: Tensor, cutout: int, holes: Tensor) -> Tensor:
    """Fill a square around each centre with zeros. DeVries and Taylor, 2017."""
    start, within = holes - cutout // 2, []
    for axis, side in enumerate(images.shape[2:]):
        span, first = torch.arange(side, device=images.device), start[:, axis, None]
        within.append((span >= first) & (span < first + cutout))
    hole = within[0][:, :, None] & within[1][:, None, :]
    return images.masked_fill(hole[:, None], 0)
