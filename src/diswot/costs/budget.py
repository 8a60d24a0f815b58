"""Costs of a network, and upper limits for them.

Conventions. Parameters are all of a network's, frozen ones too. One MAC is one multiply-add,
counted on one image in convolutions and matrix products, attention included; bias, normalisation,
activation and pooling do not count. Memory is the peak of live activations in bytes in the forward
pass of one image, as torch runs it eagerly in evaluation mode, with whole attention maps. Latency
is measured (`costs.latency`). A network with an operation whose MACs have no formula is refused
where MACs are limited or an objective. More in docs/budgets.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import Any

from torch import nn

from diswot.costs.counts import Counts, Shape, count, count_params
from diswot.errors import UserError, one_line
from diswot.utils.units import (
    parse_bytes,
    parse_count,
    parse_seconds,
    show_bytes,
    show_count,
    show_seconds,
)


class Costs:
    """Costs of one network, each computed once, when it is first asked for.

    Args:
        model: The network.
        image_shape: Channels, height and width.
        latency: Measures the latency in seconds; by default asking for it is an error.
    """

    def __init__(
        self, model: nn.Module, image_shape: Shape, latency: Callable[[], float] | None = None
    ) -> None:
        self._model, self._shape, self._latency = model, image_shape, latency

    @cached_property
    def counts(self) -> Counts:
        """Multiply-adds and memory, counted in one pass."""
        return count(self._model, self._shape)

    @cached_property
    def params(self) -> int:
        """Number of parameters."""
        return count_params(self._model)

    @cached_property
    def latency(self) -> float:
        """Measured latency of one image in seconds."""
        if self._latency is None:
            raise UserError("a limit or an objective is the latency, and nothing measures it")
        return self._latency()


@dataclass(frozen=True)
class Cost:
    """A cost that can have a limit, or be an objective.

    Attributes:
        unit: Unit of `value`, with the name of the cost.
        value: Returns the cost of a network in that unit.
        show: Formats a value for people.
        read: Reads a value with its unit, such as 0.3M.
    """

    unit: str
    value: Callable[[Costs], float]
    show: Callable[[float], str]
    read: Callable[[str], float]


# In the order in which they are checked: fast ones first.
COSTS: dict[str, Cost] = {
    "params": Cost("params", lambda costs: costs.params, show_count, parse_count),
    "macs": Cost("MACs", lambda costs: costs.counts.all_macs(), show_count, parse_count),
    "memory": Cost(
        "bytes of activations", lambda costs: costs.counts.memory, show_bytes, parse_bytes
    ),
    "latency": Cost("seconds of latency", lambda costs: costs.latency, show_seconds, parse_seconds),
}


def show_costs(costs: Mapping[str, float]) -> str:
    """Format costs by key of `COSTS` for people, such as `272,474 params, 40.8M MACs`."""
    shown = {"params": "{:,.0f}".format}
    return ", ".join(
        f"{shown.get(name, cost.show)(costs[name])} {'MACs' if name == 'macs' else name}"
        for name, cost in COSTS.items()
        if name in costs
    )


@dataclass(frozen=True)
class Excess:
    """A limit that a network exceeds.

    Attributes:
        of: Name of the cost, with its unit.
        value: Cost of the network.
        limit: Limit of the budget.
    """

    of: str
    value: float
    limit: float

    def __str__(self) -> str:
        value = f"{self.value:,}" if isinstance(self.value, int) else f"{self.value:,.3g}"
        return f"{value} {self.of} > {self.limit:,.15g}"


@dataclass(frozen=True)
class Budget:
    """Upper limits for the costs of a student; None is no limit.

    A limit is a number, or a text with a unit, such as 0.3M, 64MB or 8ms, which becomes a number.

    Attributes:
        max_params: Parameters, trainable or frozen.
        max_macs: Multiply-adds of one image.
        max_memory: Peak of live activations in the forward pass of one image, in bytes.
        max_latency: Measured latency of one image, in seconds.

    Raises:
        UserError: A limit is no number above zero in its unit.
    """

    max_params: float | str | None = None
    max_macs: float | str | None = None
    max_memory: float | str | None = None
    max_latency: float | str | None = None

    def __post_init__(self) -> None:
        for cost, row in COSTS.items():
            name = f"max_{cost}"
            limit = getattr(self, name)
            if isinstance(limit, str):
                try:
                    object.__setattr__(self, name, row.read(limit))
                except UserError as error:
                    raise UserError(f"{name}: {error}") from error
            elif limit is not None and (isinstance(limit, bool) or not isinstance(limit, Real)):
                raise UserError(f"{name} must be a number or a text such as 0.3M, not {limit!r}")
            elif limit is not None and not float(limit) > 0:
                raise UserError(f"{name} must be above zero, not {limit}")

    @classmethod
    def like(
        cls,
        network: nn.Module,
        image_shape: Shape,
        costs: Sequence[str] = ("params", "macs"),
        latency: Callable[[], float] | None = None,
    ) -> Budget:
        """Return the budget of an equal cost: the costs of a network as limits.

        Args:
            network: A network on any device, such as a student that was designed by hand.
            image_shape: Channels, height and width of the images.
            costs: Keys of `COSTS` that become limits. Default: parameters and multiply-adds.
            latency: Measures the latency in seconds; only called if `costs` has latency.

        Raises:
            UserError: The network cannot take such images, or nothing measures its latency.
        """
        own = Costs(network, image_shape, latency)
        try:
            return cls(**{f"max_{name}": COSTS[name].value(own) for name in costs})
        except UserError:
            raise
        except Exception as error:  # a user's network may raise anything
            reason = one_line(error)
            what = f"the network cannot take an image of shape {image_shape}"
            raise UserError(f"{what}: {reason}") from error

    @property
    def limits(self) -> dict[str, float]:
        """The limits that are set, by key of `COSTS`, the fastest to check first."""
        given: dict[str, Any] = {name: getattr(self, f"max_{name}") for name in COSTS}
        return {name: limit for name, limit in given.items() if limit is not None}

    def check(self, costs: Costs) -> tuple[Excess | None, dict[str, float]]:
        """Check one limit after another, up to the first that is exceeded.

        Returns:
            The exceeded limit, or None; and by name of each checked limit the excess as a share of
            the limit, which is zero or negative within the limit.
        """
        margins: dict[str, float] = {}
        for name, limit in self.limits.items():
            value = COSTS[name].value(costs)
            margins[name] = value / limit - 1
            if value > limit:
                return Excess(COSTS[name].unit, value, limit), margins
        return None, margins
