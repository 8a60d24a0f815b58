"""How the predictions of a task are drawn, and the colours of the classes.

Letters: B images, K classes, H x W pixels.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

GREY = (0.5, 0.5, 0.5)
_GOLDEN = 0.618034  # a turn of the hue by the golden ratio keeps colours apart

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Drawing:
    """Functions that draw the targets of an image, and predictions like targets.

    Attributes:
        name: What is drawn, such as masks.
        note: What a reader must know of the pictures; empty for nothing.
        measured: What the result of a class is, for the first words of a sentence.
        grey: What is drawn in grey.
        plain: Whether the image alone is shown, too.
        as_targets: Function of predictions and of the targets of B images: the predictions in the
            form of targets.
        draw: Function of an image, 3 x H x W with values of 0 to 1, of its targets, and of the
            colour of each class: a data URI.
        present: Function of targets of B images: the classes that are drawn; `IGNORED` for grey.
    """

    name: str
    note: str
    measured: str
    grey: str
    plain: bool
    as_targets: Callable[[Tensor, Tensor], Tensor]
    draw: Callable[[Tensor, Tensor, list[Colour]], str]
    present: Callable[[Tensor], set[int]]


def class_colours(classes: int) -> list[Colour]:
    """Return a colour for each of K classes, values of 0 to 1; none of them is grey."""
    return [
        colorsys.hls_to_rgb((0.58 + k * _GOLDEN) % 1, (0.45, 0.65, 0.3)[k // 7 % 3], 0.65)
        for k in range(classes)
    ]
