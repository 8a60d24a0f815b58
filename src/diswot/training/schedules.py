"""How the learning rate moves during a training: shares of the highest one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

WARM_UP, START = 0.3, 0.04  # of one-cycle: share of the steps, and of the highest learning rate


@dataclass(frozen=True)
class Drops:
    """When a step-wise schedule lowers the rate: `at` these shares of the training, by `factor`."""

    at: tuple[float, ...] = ()
    factor: float = 0.1


_NONE = Drops()


def cosine(done: float, drops: Drops = _NONE) -> float:
    """Share of the highest learning rate, from 1 down to 0 along half a cosine.

    Args:
        done: Share of the training that is done, from 0 to 1.
        drops: Not looked at.
    """
    return (1 + math.cos(math.pi * done)) / 2


def onecycle(done: float, drops: Drops = _NONE) -> float:
    """Up from `START` to 1 within `WARM_UP` of the training, then down to 0; along cosines.

    Smith and Topin, 2019 (arXiv 1708.07120), with the momentum left as it is.

    Args:
        done: Share of the training that is done, from 0 to 1.
        drops: Not looked at.
    """
    if done < WARM_UP:
        return START + (1 - START) * (1 - cosine(done / WARM_UP))
    return cosine((done - WARM_UP) / (1 - WARM_UP))


def step(done: float, drops: Drops = _NONE) -> float:
    """Lowered by a factor at each milestone, constant between them.

    Args:
        done: Share of the training that is done, from 0 to 1.
        drops: When, and by what.
    """
    return float(drops.factor ** sum(done >= at for at in drops.at))


SCHEDULES: dict[str, Callable[[float, Drops], float]] = {
    "cosine": cosine,
    "onecycle": onecycle,
    "step": step,
}
