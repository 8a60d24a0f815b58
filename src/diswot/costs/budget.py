"""What a network costs, and limits on that.

Conventions: parameters are all trainable ones; 1 MAC is one multiply-add, counted on one image in
convolutions and matrix products (attention included), with bias, normalisation, activation and
pooling left out; memory is bytes of live activations at the peak of one image's forward pass, as
torch runs it eagerly in evaluation mode, with attention's maps held in full; latency is measured
(`budget.latency`). docs/budgets.md has them at length.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import nn

from diswot.costs.counts import Counts, Shape, count, count_params
from diswot.errors import UserError
from diswot.utils.units import (
    show_bytes,
    show_count,
    show_seconds,
)


class Costs:
    """What one network costs, each found when it is first asked for, and once.

    Args:
        model: The network.
        image_shape: C, H, W.
        latency: Measures its seconds; without, asking for them is an error.
    """

    def __init__(
        self, model: nn.Module, image_shape: Shape, latency: Callable[[], float] | None = None
    ) -> None:
        self._model, self._shape, self._latency = model, image_shape, latency

    @cached_property
    def counts(self) -> Counts:
        """Multiply-adds and memory, found in one pass."""
        return count(self._model, self._shape)

    @cached_property
    def params(self) -> int:
        """Trainable parameters."""
        return count_params(self._model)

    @cached_property
    def latency(self) -> float:
        """Measured seconds of one image."""
        if self._latency is None:
            raise UserError("nothing measures the latency that is limited or an objective")
        return self._latency()


@dataclass(frozen=True)
class Cost:
    """A cost that can be limited, or be an objective.

    Attributes:
        unit: What `value` is a number of.
        value: Of a network, in that unit.
        show: Writes it for people.
    """

    unit: str
    value: Callable[[Costs], float]
    show: Callable[[float], str]


# Those that are quick to find come first.
COSTS: dict[str, Cost] = {
    "params": Cost("params", lambda costs: costs.params, show_count),
    "macs": Cost("MACs", lambda costs: costs.counts.macs, show_count),
    "memory": Cost("bytes of activations", lambda costs: costs.counts.memory, show_bytes),
    "latency": Cost("seconds of latency", lambda costs: costs.latency, show_seconds),
}


@dataclass(frozen=True)
class Excess:
    """A limit that a network breaks.

    Attributes:
        of: What is limited, with its unit.
        value: The network's.
        limit: The budget's.
    """

    of: str
    value: float
    limit: float

    def __str__(self) -> str:
        value = f"{self.value:,}" if isinstance(self.value, int) else f"{self.value:,.3g}"
        return f"{value} {self.of} > {self.limit:,.15g}"


@dataclass(frozen=True)
class Budget:
    """Upper limits for a student; None is no limit.

    Attributes:
        max_params: Trainable parameters.
        max_macs: Multiply-adds of one image.
        max_memory: Bytes of live activations at the peak of one image's forward pass.
        max_latency: Measured seconds of one image.
    """

    max_params: float | None = None
    max_macs: float | None = None
    max_memory: float | None = None
    max_latency: float | None = None

    def __post_init__(self) -> None:
        for name, limit in vars(self).items():
            if limit is not None and not limit > 0:
                raise UserError(f"{name} must be above zero, not {limit}")

    @property
    def limits(self) -> dict[str, float]:
        """The limits there are, by the names of `COSTS`, the cheapest to check first."""
        given: dict[str, Any] = {name: getattr(self, f"max_{name}") for name in COSTS}
        return {name: limit for name, limit in given.items() if limit is not None}

    def check(self, costs: Costs) -> tuple[Excess | None, dict[str, float]]:
        """Look at one limit after the other, up to the first that is broken.

        Returns:
            The broken limit, or None; and of each limit that was looked at by how much it is
            exceeded, as a share of the limit: zero or less is within it.
        """
        margins: dict[str, float] = {}
        for name, limit in self.limits.items():
            value = COSTS[name].value(costs)
            margins[name] = value / limit - 1
            if value > limit:
                return Excess(COSTS[name].unit, value, limit), margins
        return None, margins

    def excess(self, model: nn.Module, image_shape: Shape) -> Excess | None:
        """The first limit that a network breaks, or None; later ones are not looked at."""
        return self.check(Costs(model, image_shape))[0]
