"""Ratios that hold on a noisy machine: everything is timed in turn, and medians are compared."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from diswot.utils.environment import hardware, versions


@dataclass(frozen=True)
class Times:
    seconds: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def over(self, other: Times) -> str:
        """The ratio of the medians, and the range of the ratios turn by turn."""
        turns = sorted(a / b for a, b in zip(self.seconds, other.seconds, strict=True))
        low, high = turns[len(turns) // 10], turns[-1 - len(turns) // 10]
        return f"{self.median / other.median:.2f} ({low:.2f} to {high:.2f})"


def in_turn(
    work: Mapping[str, Callable[[], object]], turns: int, warm_up: int = 2
) -> dict[str, Times]:
    """Time each piece of work once a turn, after some turns that do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(warm_up + turns):
        for name, call in work.items():
            start = time.perf_counter()
            call()
            if turn >= warm_up:
                seconds[name].append(time.perf_counter() - start)
    return {name: Times(values) for name, values in seconds.items()}


def footer(turns: int) -> str:
    facts = {**hardware(), **versions()}
    return f"medians of {turns} turns (10th to 90th percentile); " + ", ".join(
        f"{name} {value}" for name, value in facts.items()
    )
