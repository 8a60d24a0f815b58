"""Input configurations of networks, and the libraries that have networks by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

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


@dataclass(frozen=True)
class Library:
    """A library of networks, under a prefix of their names, and its facts.

    Attributes:
        input_config: Function of a name and `pretrained` that returns an input configuration.
        build: Function of a name, K, S and `pretrained` that returns a network.
        summary: One line.
        example: Name of a network.
    """

    input_config: Callable[[str, bool], InputConfig]
    build: Callable[[str, int, int | None, bool], nn.Module]
    summary: str
    example: str


FETCHING = (
    "has no pretrained weights here, and they cannot be fetched (see the library's cache and your "
    "network, or leave --pretrained out and give --teacher-weights)"
)
