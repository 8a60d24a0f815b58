"""How to train a network: the settings of `distill`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR

from diswot import knowledge
from diswot.errors import UserError, unknown

PRECISIONS = ("auto", "fp32", "bf16")

SCHEDULES: dict[str, Callable[[Optimizer, float, int], LRScheduler]] = {
    "cosine": lambda optimizer, lr, steps: CosineAnnealingLR(optimizer, steps),
    "onecycle": lambda optimizer, lr, steps: OneCycleLR(optimizer, lr, total_steps=steps),
}


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
        seed: Of the order and the augmentation of the images.
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
        for name, least in (("epochs", 1), ("batch_size", 2), ("crop", 0)):
            if getattr(self, name) < least:
                raise UserError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if not self.lr > 0:
            raise UserError(f"lr must be above zero, not {self.lr}")
        if self.schedule not in SCHEDULES:
            raise unknown("schedule", self.schedule, SCHEDULES)
        if self.precision not in PRECISIONS:
            raise unknown("precision", self.precision, PRECISIONS)
        for name in self.losses:
            knowledge.get(name)


def parse_losses(text: str) -> dict[str, float]:
    """Read weighted knowledge distances such as `kd:0.9,relation:1`; no weight means 1.

    Raises:
        UserError: A name is unknown or a weight is no number.
    """
    losses = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, weight = part.partition(":")
        knowledge.get(name)
        try:
            losses[name] = float(weight or 1)
        except ValueError as error:
            raise UserError(f"{weight!r} is no weight for {name}") from error
    return losses
