"""Rank statistics, computed for many bootstrap resamples of a table at once.

Letters: N architectures, R resamples. Weights, R x N, count how often each resample has each
architecture; a row of ones is the table itself. Every statistic returns R numbers. Each equals the
statistic of the resample with its repetitions, ties included, and is NaN where not defined. A score
may be minus infinity, the lowest rank; the caller leaves out scores that are NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

BINS = 10
_ROWS = 1000  # rows of an N x N matrix in memory at a time


@dataclass(frozen=True)
class RankingInput:
    """A score of N architectures, their accuracies in %, their sizes, and budgets of the regret."""

    score: Array
    accuracy: Array
    size: Array
    budgets: Array


def falling(value: float) -> float:
    """Return a key that sorts values from the highest down, NaN at the end."""
    return math.inf if math.isnan(value) else -value


def kendall(x: Array, y: Array, weights: Array) -> Array:
    """Compute Kendall's tau-b.

    Concordant minus discordant pairs, over the geometric mean of the pairs untied in x and in y.
    """
    untied = _untied(x, weights) * _untied(y, weights)
    return _ratio(_concordance(x, y, weights), np.sqrt(untied))


def partial_kendall(x: Array, y: Array, z: Array, weights: Array) -> Array:
    """Compute Kendall's partial tau of x and y given z (Kendall 1942, "Partial Rank Correlation").

    The logarithm of z, or any other increasing function of z, gives the same value.
    """
    xy, xz, yz = (kendall(a, b, weights) for a, b in ((x, y), (x, z), (y, z)))
    left = np.maximum(0, (1 - xz**2) * (1 - yz**2))
    return _ratio(xy - xz * yz, np.sqrt(np.where(left < 1e-12, 0, left)))


def binned_kendall(x: Array, y: Array, z: Array, weights: Array, bins: int = BINS) -> Array:
    """Compute the mean tau-b within quantile bins of z; equal values of z share a bin.

    A bin where x is constant and y varies counts as 0, as x does not rank that bin. A bin where y
    is constant is left out.
    """
    place = (midranks(z, np.ones((1, len(z))))[0] - 0.5) / len(z)
    parts = []
    for number in range(bins):
        inside = np.floor(place * bins) == number
        held = weights[:, inside]
        tau = kendall(x[inside], y[inside], held)
        unranked = (_untied(x[inside], held) == 0) & (_untied(y[inside], held) > 0)
        parts.append(np.where(unranked, 0.0, tau))
    return _mean(np.stack(parts))


def spearman(x: Array, y: Array, weights: Array) -> Array:
    """Compute Spearman's rho: Pearson's r of the mid-ranks."""
    return _weighted_pearson(midranks(x, weights), midranks(y, weights), weights)


def pearson(x: Array, y: Array, weights: Array) -> Array:
    """Compute Pearson's r over the finite scores."""
    finite = np.isfinite(x)
    return _weighted_pearson(x[None, finite], y[None, finite], weights[:, finite])


def precision(x: Array, y: Array, weights: Array, share: float = 0.1) -> Array:
    """Compute the share of the best tenth by x that is in the best tenth by y.

    Ties are broken at random; the value is the expectation.
    """
    count = np.maximum(1, np.round(share * weights.sum(1)))
    both = _best(x, weights, count) * _best(y, weights, count) * weights
    return _ratio(both.sum(1), count)


def regret(x: Array, y: Array, size: Array, budgets: Array, weights: Array) -> Array:
    """Compute the highest y within a budget minus the y of the pick by x, averaged over budgets.

    The y of tied picks is averaged. A budget without any architecture is left out.
    """
    _, rank = np.unique(x, return_inverse=True)
    losses = []
    for budget in budgets:
        held = np.where(size <= budget, weights, 0)
        pick = np.where(held > 0, rank, -1)
        tied = held * (pick == pick.max(1, keepdims=True))
        best = np.where(held > 0, y, -np.inf).max(1)
        losses.append(np.where(held.any(1), best, np.nan) - _ratio((tied * y).sum(1), tied.sum(1)))
    return _mean(np.stack(losses))


STATISTICS: dict[str, Callable[[RankingInput, Array], Array]] = {
    "kendall": lambda r, w: kendall(r.score, r.accuracy, w),
    "spearman": lambda r, w: spearman(r.score, r.accuracy, w),
    "pearson": lambda r, w: pearson(r.score, r.accuracy, w),
    "precision_top10": lambda r, w: precision(r.score, r.accuracy, w),
    "regret": lambda r, w: regret(r.score, r.accuracy, r.size, r.budgets, w),
    "kendall_given_params": lambda r, w: partial_kendall(r.score, r.accuracy, r.size, w),
    "kendall_within_deciles": lambda r, w: binned_kendall(r.score, r.accuracy, r.size, w),
}


def midranks(x: Array, weights: Array) -> Array:
    """Rank each value in each resample, R x N; ties share their mean rank."""
    group, held = _by_value(x, weights)
    return np.asarray((held.cumsum(1) - held / 2 + 0.5)[:, group])


def ceiling(accuracy: Array, deviation: float, draws: int, random: np.random.Generator) -> Array:
    """Simulate the tau-b of a perfect score with N accuracies that have seed noise of a deviation.

    The perfect score is the accuracy without noise, which is not known. The measured accuracies,
    shrunk towards their mean, stand in for it: with noise added they have the measured variance.

    Returns:
        R values of tau-b.
    """
    variance = accuracy.var()
    shrink = np.sqrt(max(0.0, 1 - deviation**2 / variance)) if variance else 0.0
    true = accuracy.mean() + shrink * (accuracy - accuracy.mean())
    once = np.ones((1, len(true)))
    noisy = (true + random.normal(0, deviation, len(true)) for _ in range(draws))
    return np.array([kendall(true, measured, once)[0] for measured in noisy])


def _concordance(x: Array, y: Array, weights: Array) -> Array:
    """Count concordant minus discordant ordered pairs, R."""
    total = np.zeros(len(weights))
    light = weights.astype(np.float32)
    for start in range(0, len(x), _ROWS):
        rows = slice(start, start + _ROWS)
        signs = _signs(x, rows) * _signs(y, rows)
        total += np.einsum("rn,rn->r", weights[:, rows], (light @ signs.T).astype(np.float64))
    return total


def _signs(x: Array, rows: slice) -> NDArray[np.float32]:
    """Return the signs of x_i - x_j for some rows i; two infinite values give 0."""
    own = x[rows, None]
    return (own > x).astype(np.float32) - (own < x).astype(np.float32)


def _untied(x: Array, weights: Array) -> Array:
    """Count the ordered pairs with different values, R."""
    _, held = _by_value(x, weights)
    return np.asarray(weights.sum(1) ** 2 - (held**2).sum(1))


def _best(x: Array, weights: Array, count: Array) -> Array:
    """Return the probability that each is among the `count` best, R x N."""
    group, held = _by_value(-x, weights)
    left = count[:, None] - (held.cumsum(1) - held)
    return np.clip(left / np.maximum(held, 1), 0, 1)[:, group]


def _by_value(x: Array, weights: Array) -> tuple[NDArray[np.intp], Array]:
    """Return the rank of each value among the G different ones, N, and their weights, R x G."""
    values, group = np.unique(x, return_inverse=True)
    if not len(values):
        return group, np.zeros((len(weights), 0))
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(len(values)))
    held = np.add.reduceat(weights[:, order], starts, axis=1)
    return group, np.asarray(held, dtype=np.float64)


def _weighted_pearson(x: Array, y: Array, weights: Array) -> Array:
    total = np.maximum(weights.sum(1, keepdims=True), 1)
    x, y = (v - (weights * v).sum(1, keepdims=True) / total for v in (x, y))
    spread = [(weights * v**2).sum(1) for v in (x, y)]
    flat = [s <= 1e-24 * total[:, 0] for s in spread]
    both = np.where(flat[0] | flat[1], 0, spread[0] * spread[1])
    return _ratio((weights * x * y).sum(1), np.sqrt(both))


def _ratio(above: Array, below: Array) -> Array:
    """Divide; the quotient is NaN where `below` is 0."""
    quotient: Array = np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)
    return quotient


def _mean(parts: Array) -> Array:
    """Average over rows, without NaN."""
    known = ~np.isnan(parts)
    return _ratio(np.where(known, parts, 0).sum(0), known.sum(0).astype(np.float64))
