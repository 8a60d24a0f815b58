"""What a network of a library says of the images that it takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

Channels = tuple[float, ...]


@dataclass(frozen=True)
class Wants:
    """What a network asks for; None where anything will do.

    Attributes:
        classes: K that its weights were trained for.
        size: S, height and width in pixels.
        mean: What is subtracted from each channel, on the scale 0 to 1.
        std: What each channel is divided by then.
    """

    classes: int | None = None
    size: int | None = None
    mean: Channels | None = None
    std: Channels | None = None


@dataclass(frozen=True)
class Library:
    """Where networks come from, by the prefix of their names, and its facts.

    Attributes:
        wants: What the network of a name asks for, pretrained or not.
        build: The network of a name for K classes and S pixels, pretrained or not.
        summary: One line.
        example: A name.
    """

    wants: Callable[[str, bool], Wants]
    build: Callable[[str, int, int | None, bool], nn.Module]
    summary: str
    example: str


FETCHING = (
    "has no pretrained weights here, and they cannot be fetched (see the library's cache and your "
    "network, or leave --pretrained out and give --teacher-weights)"
)
