"""How to train a network: the settings of `distill`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from diswot import knowledge
from diswot.errors import UserError, unknown

PRECISIONS = ("auto", "fp32", "bf16")

LARGEST = 1e9  # of learning rates and weights: beyond, single precision overflows at once
WARM_UP, START = 0.3, 0.04  # of one-cycle: share of the steps, and of the highest learning rate


def cosine(done: float) -> float:
    """Share of the highest learning rate, from 1 down to 0 along half a cosine.

    Args:
        done: Share of the training that is done, from 0 to 1.
    """
    return (1 + math.cos(math.pi * done)) / 2


def onecycle(done: float) -> float:
    """Up from `START` to 1 within `WARM_UP` of the training, then down to 0; along cosines.

    Smith and Topin, 2019 (arXiv 1708.07120), with the momentum left as it is.

    Args:
        done: Share of the training that is done, from 0 to 1.
    """
    if done < WARM_UP:
        return START + (1 - START) * (1 - cosine(done / WARM_UP))
    return cosine((done - WARM_UP) / (1 - WARM_UP))


SCHEDULES: dict[str, Callable[[float], float]] = {"cosine": cosine, "onecycle": onecycle}


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        epochs: Passes over the training images.
        batch_size: B, at least 2.
        lr: Highest learning rate of SGD.
        momentum: Of SGD, Nesterov's.
        weight_decay: Of SGD, on weights; not on biases and normalisation.
        schedule: A key of `SCHEDULES`, stepped each batch.
        cross_entropy: Weight of the cross-entropy with the labels.
        losses: Weight of each knowledge distance to the teacher, by key of `KNOWLEDGE`.
        crop: Random shifts of up to so many pixels.
        flip: Random horizontal flips.
        precision: `fp32`, `bf16` (autocast), or `auto`: bf16 where the device computes in it.
        seed: Of the order and the augmentation of the images, 0 or more.
    """

    epochs: int = 240
    batch_size: int = 64
    lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "cosine"
    cross_entropy: float = 1.0
    losses: Mapping[str, float] = field(default_factory=lambda: {"kd": 1.0})
    crop: int = 4
    flip: bool = True
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 2), ("crop", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise UserError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if not 0 < self.lr < LARGEST:
            raise UserError(f"lr must be above 0 and below {LARGEST:g}, not {self.lr}")
        if not 0 <= self.momentum < 1:
            raise UserError(f"momentum must be at least 0 and below 1, not {self.momentum}")
        if self.schedule not in SCHEDULES:
            raise unknown("schedule", self.schedule, SCHEDULES)
        if self.precision not in PRECISIONS:
            raise unknown("precision", self.precision, PRECISIONS)
        for name in self.losses:
            knowledge.get(name)
        weights = {"weight_decay": self.weight_decay, "cross_entropy": self.cross_entropy}
        for name, weight in {**weights, **self.losses}.items():
            if not 0 <= weight < LARGEST:
                raise UserError(f"{name} must be at least 0 and below {LARGEST:g}, not {weight}")


def parse_losses(text: str) -> dict[str, float]:
    """Read weighted knowledge distances such as `kd:0.9,relation:1`; no weight means 1.

    Raises:
        UserError: A name is unknown or there twice, a weight is no number, or there is none.
    """
    losses: dict[str, float] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, weight = (piece.strip() for piece in part.partition(":"))
        knowledge.get(name)
        if name in losses:
            raise UserError(f"{name} is weighted twice in {text!r}")
        try:
            losses[name] = float(weight or 1)
        except ValueError as error:
            raise UserError(f"{weight!r} is no weight for {name}") from error
    if not losses:
        raise UserError("no loss is named; name some, such as kd:0.9,relation:1")
    return losses
