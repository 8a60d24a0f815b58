"""Strides of a network for 224 pixels on smaller images."""

from __future__ import annotations

from collections.abc import Sequence

LEAST = 3  # height and width of the last map at least


def strides(wanted: Sequence[int], img_size: int) -> list[int]:
    """Return the strides of a network, in order, with the first set to 1 for small images.

    As many first strides are 1 as the last map needs to be at least 3 x 3. It is 4 x 4 at 32
    pixels, as is usual for CIFAR, and at 64. From 96 pixels on, a network that divides the size by
    32 keeps all strides.
    """
    room, kept = max(1, img_size // LEAST), []
    for stride in reversed(wanted):
        kept.append(stride if stride <= room else 1)
        room //= kept[-1]
    return kept[::-1]
