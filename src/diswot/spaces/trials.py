"""Trials without a study: of fixed parameters, and of choices by index."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from diswot.errors import UserError
from diswot.storage.compat import ChoosingTrial, contains

MOST = 1000  # parameters of one network
_SHOWN = 8  # values of one parameter in a message


class FixedParamsTrial(ChoosingTrial):
    """A trial that takes its values from a mapping of parameters.

    Unlike Optuna's `FixedTrial`, it refuses a missing value and a value outside of the choices by
    one line.
    """

    def __init__(self, params: Mapping[str, Any]) -> None:
        super().__init__()
        self.given = dict(params)

    def choose(self, name: str, distribution: BaseDistribution) -> Any:
        """Return the value of a parameter.

        Raises:
            UserError: The mapping has no such value, or the distribution does not allow it.
        """
        if name not in self.given:
            raise UserError(f"parameter {name!r} is missing; its choices: {describe(distribution)}")
        value = self.given[name]
        if not contains(distribution, value):
            choices = describe(distribution)
            raise UserError(f"{name} = {value!r} is not among its choices: {choices}")
        return value


class EnumeratingTrial(ChoosingTrial):
    """A trial that takes choices by their index, to enumerate a space.

    Args:
        digits: Index of the choice at each suggestion, in the order of the suggestions.
        last: Whether suggestions past the end of `digits` take the last choice. By default they
            take the first.
        random: Generator that draws the choices past the end. None, the default, draws nothing.
    """

    def __init__(
        self,
        digits: Sequence[int] = (),
        *,
        last: bool = False,
        random: np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        self._wanted = list(digits)
        self._last = last
        self._random = random
        self._digits: list[int] = []

    def choose(self, name: str, distribution: BaseDistribution) -> Any:
        """Return the value of a parameter; the same if the space asks again.

        Raises:
            UserError: The space asks for too many parameters.
        """
        if name in self.params:
            return self.params[name]
        if len(self._digits) > MOST:
            raise _endless(name)
        self._digits.append(self._digit(distribution))
        return choice(distribution, self._digits[-1])

    def _digit(self, distribution: BaseDistribution) -> int:
        turn, count = len(self._digits), count_choices(distribution)
        if turn < len(self._wanted):
            return self._wanted[turn]
        if self._random is not None and math.isfinite(count):
            return int(self._random.integers(int(count)))
        return int(count) - 1 if self._last and math.isfinite(count) else 0

    def check(self) -> None:
        """Check the choices of the trial.

        Raises:
            UserError: There are too many, or one has no bounds, or a value is not plain, so that a
                storage would not return it unchanged.
        """
        if len(self._digits) > MOST:
            raise _endless(next(reversed(self.distributions)))
        for name, distribution in self.distributions.items():
            bounds = getattr(distribution, "low", 0), getattr(distribution, "high", 0)
            if not all(map(math.isfinite, bounds)):
                raise UserError(f"choices of {name!r} have no bounds: {distribution}")
            for value in getattr(distribution, "choices", ()):
                if not isinstance(value, bool | int | float | str | None):
                    kind = type(value).__name__
                    raise UserError(f"choices of {name!r} must be numbers or strings, not {kind}")

    def sizes(self) -> list[float]:
        """Return the number of choices of each parameter; infinite if continuous."""
        return [count_choices(distribution) for distribution in self.distributions.values()]

    def next_digits(self) -> list[int] | None:
        """Return the indices of the next architecture, or None after the last."""
        digits, sizes = list(self._digits), self.sizes()
        while digits and digits[-1] + 1 >= sizes[len(digits) - 1]:
            digits.pop()
        return [*digits[:-1], digits[-1] + 1] if digits else None


def _endless(name: str) -> UserError:
    return UserError(f"more than {MOST} choices for one network, such as {name!r}: has it no end?")


def count_choices(distribution: BaseDistribution) -> float:
    """Return the number of values of a distribution; infinite if continuous."""
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    if isinstance(distribution, IntDistribution):
        return (distribution.high - distribution.low) // distribution.step + 1
    assert isinstance(distribution, FloatDistribution)
    if distribution.step is None:
        return 1 if distribution.single() else math.inf
    return round((distribution.high - distribution.low) / distribution.step) + 1


def choice(distribution: BaseDistribution, index: int) -> Any:
    """Return the value of an index in a distribution."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[index]
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return min(distribution.low + index * (distribution.step or 1), distribution.high)


def describe(distribution: BaseDistribution) -> str:
    """Describe the values of a distribution; of many values, only some or the bounds."""
    count = count_choices(distribution)
    if count <= _SHOWN or isinstance(distribution, CategoricalDistribution):
        values = [repr(choice(distribution, i)) for i in range(min(int(count), _SHOWN))]
        more = [f"and {int(count) - _SHOWN} more"] * (count > _SHOWN)
        return ", ".join([*values, *more])
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    steps = "" if distribution.step in (None, 1) else f" in steps of {distribution.step}"
    return f"{distribution.low} to {distribution.high}{steps}"


def draw(distribution: BaseDistribution, random: np.random.Generator) -> Any:
    """Draw a value of a distribution uniformly; on a log scale if the distribution has one."""
    count = count_choices(distribution)
    if math.isfinite(count):
        return choice(distribution, int(random.integers(int(count))))
    assert isinstance(distribution, FloatDistribution)
    low, high = distribution.low, distribution.high
    if distribution.log:
        drawn = math.exp(random.uniform(math.log(low), math.log(high)))
        return min(max(drawn, low), high)
    return float(random.uniform(low, high))
