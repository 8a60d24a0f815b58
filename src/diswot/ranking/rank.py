"""The rank study: does a score predict the accuracy of trained students?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from diswot.errors import UserError
from diswot.ranking.statistics import BINS, STATISTICS, Array, RankingInput, ceiling, falling
from diswot.utils.notebook import Curve, data_frame, figure, html_table

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure

CEILING = "ceiling"
# Rows that are no candidates.
REFERENCE_ROWS = ("params", "macs", "depth", "size", "vanilla", CEILING)

_SHOWN = 5  # scores in a `repr`


@dataclass(frozen=True)
class Interval:
    """A statistic with its 95 % bootstrap interval; a number that is not defined is NaN."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Ranking:
    """How one score ranks a table.

    Attributes:
        n: Number of ranked architectures.
        missing: Number of architectures without a score or an accuracy; they are left out.
        lowest: Number of architectures with the score minus infinity. They rank below all others;
            Pearson's r leaves them out.
        tied: Share of the pairs that have equal scores.
        statistics: Statistics by the keys of `statistics.STATISTICS`.
    """

    n: int
    missing: int
    lowest: int
    tied: float
    statistics: dict[str, Interval]

    @property
    def tau(self) -> float:
        """Kendall's tau-b."""
        return self.statistics["kendall"].value

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON: each statistic, and `<statistic>_interval`."""
        facts = {key: value for key, value in vars(self).items() if key != "statistics"}
        values = {name: found.value for name, found in self.statistics.items()}
        bounds = {f"{name}_interval": [f.low, f.high] for name, f in self.statistics.items()}
        return {**facts, **values, **bounds}


@dataclass(frozen=True, repr=False, eq=False)
class RankResult(Mapping[str, Ranking]):
    """The result of a rank study: a `Ranking` by the name of each score."""

    rankings: dict[str, Ranking]

    def __getitem__(self, name: str) -> Ranking:
        return self.rankings[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.rankings)

    def __len__(self) -> int:
        return len(self.rankings)

    def to_dataframe(self) -> DataFrame:
        """Return a pandas data frame: a row per score, each statistic with its interval."""
        rows: list[dict[str, Any]] = []
        for name, row in self.rankings.items():
            cells = {"score": name, "n": row.n, "missing": row.missing, "tied": row.tied}
            for key, found in row.statistics.items():
                cells |= {key: found.value, f"{key}_low": found.low, f"{key}_high": found.high}
            rows.append(cells)
        return data_frame(rows, "score")

    def plot(self) -> Figure:
        """Return a Plotly figure of Kendall's tau-b by score, the highest at the top."""
        rows = [(name, row.tau) for name, row in reversed(self._by_tau()) if row.tau == row.tau]
        names, taus = [name for name, _ in rows], [tau for _, tau in rows]
        return figure([Curve("scores", taus, names, mode="markers")], "Kendall's tau-b", "score")

    def __repr__(self) -> str:
        taus = [f"{name} {row.tau:.3f}" for name, row in self._by_tau()]
        more = [f"{len(taus) - _SHOWN} more"] if len(taus) > _SHOWN else []
        return f"RankResult(Kendall's tau-b: {', '.join([*taus[:_SHOWN], *more])})"

    def _repr_html_(self) -> str:
        rows = [
            [name, *(_shown(row.statistics.get(each)) for each in STATISTICS), row.n]
            for name, row in self._by_tau()
        ]
        return html_table(["score", *STATISTICS, "n"], rows)

    def _by_tau(self) -> list[tuple[str, Ranking]]:
        """Return the rankings by falling tau; undefined values come last."""
        return sorted(self.rankings.items(), key=lambda item: falling(item[1].tau))


def _shown(found: Interval | None) -> str:
    if found is None or np.isnan(found.value):
        return "-"
    bounds = "" if np.isnan(found.low) else f" ({found.low:.2f} to {found.high:.2f})"
    return f"{found.value:.3f}{bounds}"


def rank(
    scores: Mapping[str, ArrayLike],
    accuracy: ArrayLike,
    params: ArrayLike,
    *,
    resamples: int = 1000,
    seed_deviation: float | None = None,
    random: np.random.Generator | None = None,
) -> RankResult:
    """Compare scores of N architectures with their accuracies.

    The intervals are percentile bootstrap intervals over the architectures; all scores share the
    same resamples. They measure how much a statistic depends on the choice of architectures, not
    on training seeds.

    Args:
        scores: N numbers by the name of each score; higher is better. Minus infinity ranks lowest;
            NaN is a missing score.
        accuracy: N accuracies in percent; NaN is a missing accuracy.
        params: N numbers of parameters. Partial tau is given the parameters, and their
            deciles are the budgets of the regret.
        resamples: Number of bootstrap resamples; 0 gives no intervals. The default is 1000.
        seed_deviation: Standard deviation of an accuracy over training seeds, in percent. It adds
            the row `ceiling`: the tau that a perfect score would reach.
        random: Generator of the resamples; `numpy.random.default_rng(0)` by default.

    Returns:
        A ranking for each score.

    Raises:
        UserError: The lengths differ, fewer than 3 accuracies are known, or a value is not a
            number.
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
        used = known & ~np.isnan(column)
        ranked = RankingInput(column[used], target[used], sizes[used], budgets)
        rows[name] = _ranking(ranked, len(target), weights[:, used].astype(np.float64))
    if seed_deviation is not None:
        draws = ceiling(target[known], seed_deviation, max(resamples, 100), random)
        rows[CEILING] = _ceiling(int(known.sum()), len(target), draws)
    return RankResult(rows)


def _ranking(ranked: RankingInput, total: int, weights: Array) -> Ranking:
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


def _ceiling(known: int, total: int, draws: Array) -> Ranking:
    tau = _interval(float(draws.mean()), draws)
    return Ranking(known, total - known, 0, 0.0, {"kendall": tau})


def _interval(value: float, draws: Array) -> Interval:
    """Return a value with the middle 95 % of the defined draws."""
    known = draws[~np.isnan(draws)]
    low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (np.nan, np.nan)
    return Interval(float(value), float(low), float(high))


def _column(name: str, values: ArrayLike) -> Array:
    try:
        column = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name} must be a list of numbers: {error}") from error
    if column.ndim != 1:
        raise UserError(f"{name} must be a list of numbers, not of shape {column.shape}")
    if np.isposinf(column).any():
        raise UserError(f"{name} contains plus infinity")
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
        raise UserError(f"the standard deviation over seeds must be at least 0, not {deviation}")
