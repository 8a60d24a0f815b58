"""Random shifts and mirror images, a whole batch at once."""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn.functional import pad


def augment(images: Tensor, crop: int, flip: bool, generator: Generator) -> Tensor:
    """Shift each image by up to `crop` pixels, zeros coming in, and mirror every other one.

    Args:
        images: B x C x S x S, of any type.
        crop: Largest shift in pixels.
        flip: Whether to mirror.
        generator: On the CPU.
    """
    count, _, side, _ = images.shape
    if crop:
        shifts = torch.randint(0, 2 * crop + 1, (2, count), generator=generator)
        shifts = shifts.to(images.device)
        span = torch.arange(side, device=images.device)
        rows = (shifts[0, :, None] + span)[:, :, None]
        columns = (shifts[1, :, None] + span)[:, None, :]
        sample = torch.arange(count, device=images.device)[:, None, None]
        padded = pad(images, [crop] * 4)
        images = padded[sample, :, rows, columns].permute(0, 3, 1, 2)
    if flip:
        mirrored = torch.rand(count, generator=generator).to(images.device) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    return images
