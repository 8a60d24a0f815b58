"""The rank study: does a score predict the accuracy of trained students?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from diswot.errors import UserError
from diswot.ranking.statistics import BINS, STATISTICS, Array, Ranked, ceiling

CEILING = "ceiling"


@dataclass(frozen=True)
class Interval:
    """A number, and where the middle 95 % of its resamples lie; NaN where not defined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Ranking:
    """How one score ranks a table.

    Attributes:
        n: Architectures ranked.
        missing: Architectures left out, for want of a score or an accuracy.
        lowest: Architectures with the score minus infinity; they rank below all others, and
            Pearson's r leaves them out.
        tied: Share of pairs with equal scores.
        statistics: By the names of `statistics.STATISTICS`.
    """

    n: int
    missing: int
    lowest: int
    tied: float
    statistics: dict[str, Interval]

    def as_dict(self) -> dict[str, Any]:
        """Plain names and numbers, for JSON: each statistic, and `<statistic>_interval`."""
        facts = {key: value for key, value in asdict(self).items() if key != "statistics"}
        values = {name: found.value for name, found in self.statistics.items()}
        bounds = {
            f"{name}_interval": [found.low, found.high] for name, found in self.statistics.items()
        }
        return {**facts, **values, **bounds}


def rank(
    scores: Mapping[str, ArrayLike],
    accuracy: ArrayLike,
    params: ArrayLike,
    *,
    resamples: int = 1000,
    seed_deviation: float | None = None,
    random: np.random.Generator | None = None,
) -> dict[str, Ranking]:
    """Compare scores of N architectures with their accuracies.

    The intervals are of the percentile bootstrap over architectures; all scores are resampled
    alike. They say how much the figures depend on which architectures are in the table, not on
    seeds.

    Args:
        scores: By name, N numbers each; higher is better. Minus infinity ranks lowest; NaN is a
            missing score.
        accuracy: N, in percent; NaN is missing.
        params: N, trainable parameters: the size at which, and the budgets within which, scores
            are compared. The budgets are the deciles of the table's.
        resamples: R; 0 for no intervals.
        seed_deviation: Standard deviation of an accuracy over training seeds; adds the row
            `ceiling`, what a perfect score would reach.
        random: Draws the resamples; `numpy.random.default_rng(0)` if not given.

    Returns:
        A row a score.

    Raises:
        UserError: The lengths differ, less than 3 accuracies are known, or a number is not one.
    """
    target, sizes = _column("accuracy", accuracy), _column("params", params)
    columns = {name: _column(name, values) for name, values in scores.items()}
    _check({"accuracy": target, "params": sizes, **columns}, resamples, seed_deviation)
    random = random or np.random.default_rng(0)
    known = np.isfinite(target) & np.isfinite(sizes)
    budgets = np.quantile(sizes[known], np.linspace(0, 1, BINS + 1)[1:])
    weights = random.multinomial(len(target), np.full(len(target), 1 / len(target)), resamples)
    rows = {}
    for name, column in columns.items():
        there = known & ~np.isnan(column)
        ranked = Ranked(column[there], target[there], sizes[there], budgets)
        rows[name] = _ranking(ranked, len(target), weights[:, there].astype(np.float64))
    if seed_deviation is not None:
        draws = ceiling(target[known], seed_deviation, max(resamples, 100), random)
        rows[CEILING] = _ceiling(target, draws)
    return rows


def _ranking(ranked: Ranked, total: int, weights: Array) -> Ranking:
    n = len(ranked.score)
    _, counts = np.unique(ranked.score, return_counts=True)
    pairs = n * (n - 1)
    found = {}
    for name, statistic in STATISTICS.items():
        value = statistic(ranked, np.ones((1, n)))[0] if n else np.nan
        found[name] = _interval(value, statistic(ranked, weights) if n else np.zeros(0))
    return Ranking(
        n=n,
        missing=total - n,
        lowest=int((ranked.score == -np.inf).sum()),
        tied=float((counts * (counts - 1)).sum() / pairs) if pairs else 0.0,
        statistics=found,
    )


def _ceiling(target: Array, draws: Array) -> Ranking:
    known = int(np.isfinite(target).sum())
    tau = _interval(float(draws.mean()), draws)
    return Ranking(known, len(target) - known, 0, 0.0, {"kendall": tau})


def _interval(value: float, draws: Array) -> Interval:
    """The middle 95 % of what is defined."""
    there = draws[~np.isnan(draws)]
    low, high = np.percentile(there, [2.5, 97.5]) if len(there) else (np.nan, np.nan)
    return Interval(float(value), float(low), float(high))


def _column(name: str, values: ArrayLike) -> Array:
    try:
        column = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name} must be a list of numbers: {error}") from error
    if column.ndim != 1:
        raise UserError(f"{name} must be a list of numbers, not of shape {column.shape}")
    if np.isposinf(column).any():
        raise UserError(f"{name} holds an infinite number")
    return column


def _check(columns: dict[str, Array], resamples: int, deviation: float | None) -> None:
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        odd = next(n for n, length in lengths.items() if length != lengths["accuracy"])
        raise UserError(f"{odd} has {lengths[odd]} values, accuracy {lengths['accuracy']}")
    known = int((np.isfinite(columns["accuracy"]) & np.isfinite(columns["params"])).sum())
    if known < 3:
        raise UserError(f"ranking needs at least 3 architectures with an accuracy, not {known}")
    if resamples < 0:
        raise UserError(f"resamples must be at least 0, not {resamples}")
    if deviation is not None and not 0 <= deviation < np.inf:
        raise UserError(f"the seeds' standard deviation must be at least 0, not {deviation}")
