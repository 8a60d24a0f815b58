"""Input configurations of networks: the images and classes that they need."""

from __future__ import annotations

from dataclasses import dataclass

Channels = tuple[float, ...]
Aliases = tuple[str, ...]  # the names of one class


@dataclass(frozen=True)
class InputConfig:
    """Images and classes that a network needs; None for what may be anything.

    Attributes:
        num_classes: Number of classes of the weights, K.
        img_size: Height and width of the images in pixels, S.
        mean: Mean of each channel, on the scale 0 to 1.
        std: Standard deviation of each channel, on the same scale.
        classes: Names of each class, in the order of the logits.
    """

    num_classes: int | None = None
    img_size: int | None = None
    mean: Channels | None = None
    std: Channels | None = None
    classes: tuple[Aliases, ...] | None = None


FETCHING = (
    "has no pretrained weights here, and they cannot be fetched (see the library's cache and your "
    "network, or leave --pretrained out and give --teacher-weights)"
)
