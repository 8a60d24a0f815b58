"""Timing of one image's pass through a network, in this process."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType

resource: ModuleType | None
try:
    import resource
except ImportError:  # on Windows
    resource = None

WARM_UP, LEAST, MOST = 3, 9, 1000  # runs
SECONDS = 0.2  # of measuring, unless `LEAST` runs take longer; three times that if disturbed
WITHIN = 0.02  # share of the median to which its interval is measured
MOST_SECONDS = 2.0  # of measuring, if the interval stays wider
TURNS_SECONDS = 1.0  # of measuring two calls in turn, unless `LEAST` turns take longer


@dataclass(frozen=True)
class Timing:
    """Seconds of one image.

    Attributes:
        seconds: Median over the runs.
        low: Lower end of the 95 % interval of the median.
        high: Upper end of that interval.
        runs: Number of runs, without those to warm up.
        disturbed: Number of further runs that were left out.
    """

    seconds: float
    low: float
    high: float
    runs: int
    disturbed: int


def timed(call: Callable[[], object], now: Callable[[], float] = time.perf_counter) -> Timing:
    """Time a call repeatedly: first to warm up, then to measure.

    Calls are repeated until the 95 % interval of their median is within 2 % of that median, for 2
    seconds at most.
    Runs during which the system gave the processor to other processes are left out if enough runs
    remain.
    """
    for _ in range(WARM_UP):
        call()
    quiet: list[float] = []
    disturbed: list[float] = []
    begin = time.perf_counter()
    while _continues(quiet, len(disturbed), time.perf_counter() - begin):
        before, start = _interruptions(), now()
        call()
        seconds = now() - start
        (quiet if _interruptions() == before else disturbed).append(seconds)
    enough = len(quiet) >= LEAST
    kept = quiet if enough else quiet + disturbed
    return Timing(*median_interval(kept), len(kept), len(disturbed) if enough else 0)


def timed_in_turn(
    first: Callable[[], object],
    second: Callable[[], object],
    now: Callable[[], float] = time.perf_counter,
) -> tuple[list[float], list[float]]:
    """Time two calls turn by turn, so that what slows the machine slows both.

    Returns:
        Seconds of the first and of the second call in each turn, without the turns to warm up.
    """
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(WARM_UP):
        first()
        second()
    begin = time.perf_counter()
    while len(seconds[0]) < LEAST or (
        len(seconds[0]) < MOST and time.perf_counter() - begin < TURNS_SECONDS
    ):
        for call, taken in zip((first, second), seconds, strict=True):
            start = now()
            call()
            taken.append(now() - start)
    return seconds


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the median, the 10th and the 90th percentile of some values."""
    ordered = sorted(values)
    tenth = len(ordered) // 10
    return statistics.median(ordered), ordered[tenth], ordered[-1 - tenth]


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the median of n values, and its 95 % interval by their ranks.

    The number of values below the true median has the deviation sqrt(n) / 2.
    """
    ordered, count = sorted(values), len(values)
    first = max(0, math.floor((count - 1.96 * math.sqrt(count)) / 2) - 1)
    return statistics.median(ordered), ordered[first], ordered[-1 - first]


def _continues(quiet: Sequence[float], disturbed: int, elapsed: float) -> bool:
    if len(quiet) + disturbed < LEAST:
        return True
    if len(quiet) + disturbed >= MOST or elapsed >= MOST_SECONDS:
        return False
    if len(quiet) < LEAST:
        return elapsed < 3 * SECONDS
    if elapsed < SECONDS:
        return True
    median, low, high = median_interval(quiet)
    return max(high - median, median - low) > WITHIN * median


def _interruptions() -> int:
    """Count how often the system took the processor from this process; 0 where it is unknown."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw if resource else 0
