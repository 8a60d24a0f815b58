"""A space that knows its name, so that a run folder can record it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from optuna.trial import BaseTrial
from torch import nn

from diswot.utils.user_code import rooted


@dataclass(frozen=True)
class NamedSpace:
    """A space as `create_space` returns it: a function of a trial.

    Attributes:
        build: The function, with the options below bound.
        name: Name of the space, as `create_space` takes it.
        num_classes: Number of logits, K.
        img_size: Height and width of the images in pixels.
    """

    build: Callable[..., nn.Module]
    name: str
    num_classes: int
    img_size: int

    def __call__(self, trial: BaseTrial) -> nn.Module:
        """Build the network of a trial."""
        return self.build(trial)

    @property
    def facts(self) -> dict[str, Any]:
        """What a run folder records of the space, with the path of a user's file made absolute."""
        return {
            "space": rooted(self.name),
            "classes": self.num_classes,
            "image_size": self.img_size,
        }
