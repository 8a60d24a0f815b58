"""How a network made for 224 pixels looks at smaller images: it shrinks them fewer times."""

from __future__ import annotations

from collections.abc import Sequence

LEAST = 3  # positions a side that are left of an image


def strides(wanted: Sequence[int], image_size: int) -> list[int]:
    """The strides of a network's parts, the first ones set to 1 where an image is small.

    Early strides are left out until the last map is at least 3 x 3: it is 4 x 4 at 32 pixels, as
    is usual for CIFAR, and at 64; from 96 pixels on, nothing of a network that shrinks images 32
    times is left out.

    Args:
        wanted: Strides at full size, in running order.
        image_size: Height and width of the images, in pixels.
    """
    room, kept = max(1, image_size // LEAST), []
    for stride in reversed(wanted):
        kept.append(stride if stride <= room else 1)
        room //= kept[-1]
    return kept[::-1]
