"""Statistics of a table of students under several teachers, each with several seeds.

Letters: S students, T teachers, R seeds. Accuracies are S x T x R, in percent.

A seed draws the weights of a student and the order of the images, and does so alike under every
teacher. So the design is a split plot (Montgomery, "Design and Analysis of Experiments", ch. 14):
the runs of a student and a seed are the whole plots, the teachers the subplots. What a seed does to
a student under all teachers cancels where teachers are compared; the residual is what is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from diswot.ranking.statistics import Array, kendall

STUDENT, SEED, TEACHER = "student", "seed within student", "teacher"
INTERACTION, RESIDUAL = "student x teacher", "residual"
RESAMPLES = 1000
LEVEL, POWER = 0.05, 0.8


@dataclass(frozen=True)
class Line:
    """A line of an analysis of variance; F and p are NaN where nothing is tested."""

    df: int
    squares: float
    f: float = np.nan
    p: float = np.nan

    @property
    def mean(self) -> float:
        """The mean square; NaN without degrees of freedom."""
        return self.squares / self.df if self.df else np.nan


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval, by resampling the students."""

    value: float
    low: float
    high: float


def complete(
    rows: Iterable[Mapping[str, str]], columns: Sequence[tuple[str, str]], seeds: Sequence[int]
) -> tuple[list[str], Array]:
    """Return the students that have every training, and their accuracies, S x T x R.

    Args:
        rows: Lines of the table.
        columns: Teacher and loss of each column.
        seeds: The seeds.
    """
    found: dict[str, dict[tuple[str, str, str], float]] = {}
    for row in rows:
        place = (row["teacher"], row["loss"], row["seed"])
        found.setdefault(row["student"], {})[place] = float(row["accuracy"])
    wanted = [[(*column, str(seed)) for seed in seeds] for column in columns]
    names = [
        name for name, made in found.items() if all(key in made for keys in wanted for key in keys)
    ]
    values = [[[found[name][key] for key in keys] for keys in wanted] for name in names]
    return names, np.array(values, dtype=float).reshape(len(names), len(columns), len(seeds))


def analysis_of_variance(y: Array) -> dict[str, Line]:
    """Return the lines of the split plot by source.

    Students are a random sample, teachers are these teachers. The teacher is tested against the
    interaction, the student against its seeds, the interaction against the residual. Of one seed
    the interaction holds the residual, and is not tested.
    """
    s, t, r = y.shape
    grand, by_student, by_teacher = y.mean(), y.mean((1, 2)), y.mean((0, 2))
    by_run, by_cell = y.mean(1), y.mean(2)
    within = by_cell - by_student[:, None] - by_teacher + grand
    left = y - by_run[:, None] - by_cell[:, :, None] + by_student[:, None, None]
    lines = {
        STUDENT: Line(s - 1, t * r * _squares(by_student - grand)),
        SEED: Line(s * (r - 1), t * _squares(by_run - by_student[:, None])),
        TEACHER: Line(t - 1, s * r * _squares(by_teacher - grand)),
        INTERACTION: Line((s - 1) * (t - 1), r * _squares(within)),
        RESIDUAL: Line(s * (t - 1) * (r - 1), _squares(left)),
    }
    tests = {TEACHER: INTERACTION, STUDENT: SEED, INTERACTION: RESIDUAL}
    return {name: _tested(line, lines.get(tests.get(name, ""))) for name, line in lines.items()}


def _squares(values: Array) -> float:
    return float(np.square(values).sum())


def _tested(line: Line, against: Line | None) -> Line:
    if against is None or not line.df or not against.df or not against.squares:
        return line
    f = line.mean / against.mean
    return Line(line.df, line.squares, f, float(stats.f.sf(f, line.df, against.df)))


def deviations(y: Array) -> dict[str, float]:
    """Return the standard deviation of each source in points: the variance components' roots.

    A negative estimate of a variance counts as 0. Of one seed the interaction holds the residual.
    """
    s, t, r = y.shape
    mean = {name: line.mean for name, line in analysis_of_variance(y).items()}
    if r == 1:
        mean[RESIDUAL] = 0.0
        mean[SEED] = 0.0
    variance = {
        STUDENT: (mean[STUDENT] - mean[SEED] - mean[INTERACTION] + mean[RESIDUAL]) / (t * r),
        SEED: (mean[SEED] - mean[RESIDUAL]) / t,
        TEACHER: (mean[TEACHER] - mean[INTERACTION]) / (s * r),
        INTERACTION: (mean[INTERACTION] - mean[RESIDUAL]) / r,
        RESIDUAL: mean[RESIDUAL],
    }
    return {name: float(np.sqrt(max(0.0, value))) for name, value in variance.items()}


def detectable(students: int, teachers: int, seeds: int, residual: float) -> float:
    """Return the standard deviation of an interaction that the test sees in 80 % of such tables.

    The test's level is 5 %, and the interaction is normal, so that F over 1 + R i^2 / e^2 has an F
    distribution: i of the interaction, e of the residual.

    Args:
        students: Number of students, at least 2.
        teachers: Number of teachers, at least 2.
        seeds: Number of seeds, at least 2.
        residual: Standard deviation of the residual in points.
    """
    df = (students - 1) * (teachers - 1), students * (teachers - 1) * (seeds - 1)
    ratio = stats.f.isf(LEVEL, *df) / stats.f.isf(POWER, *df)
    return float(residual * np.sqrt((ratio - 1) / seeds))


def estimate(y: Array, statistic: Callable[[Array], float]) -> Estimate:
    """Return a statistic of the accuracies with its interval."""
    random = np.random.default_rng(0)
    drawn = [statistic(y[random.integers(len(y), size=len(y))]) for _ in range(RESAMPLES)]
    return _estimate(statistic(y), np.array(drawn))


def tau(x: Array, y: Array) -> Estimate:
    """Return Kendall's tau-b of two columns of S values, with its interval; NaN if one is constant.

    Students without one of the values are left out.
    """
    return lead([(x, y)], [])


def lead(pairs: Sequence[tuple[Array, Array]], others: Sequence[tuple[Array, Array]]) -> Estimate:
    """Return the mean tau of some pairs of columns less that of others, with its interval.

    Args:
        pairs: Columns of S values each.
        others: Columns of the same students; none for a mean of 0.
    """
    every = np.array([column for pair in [*pairs, *others] for column in pair], dtype=float)
    there = ~np.isnan(every).any(0)
    count = int(there.sum())
    if count < 3:
        return Estimate(np.nan, np.nan, np.nan)
    draws = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    weights = np.concatenate([np.ones((1, count)), draws])
    found = np.array([kendall(x[there], y[there], weights) for x, y in [*pairs, *others]])
    value = found[: len(pairs)].mean(0)
    if others:
        value = value - found[len(pairs) :].mean(0)
    return _estimate(float(value[0]), value[1:])


def _estimate(value: float, drawn: Array) -> Estimate:
    if np.isnan(value) or np.isnan(drawn).all():
        return Estimate(value, np.nan, np.nan)
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return Estimate(value, float(low), float(high))


@dataclass(frozen=True)
class Agreement:
    """Mean tau over pairs of teachers and seeds.

    Attributes:
        seeds: Same teacher, two seeds.
        teachers: Two teachers, one seed.
        both: Two teachers, two seeds.
        lead: By how much `seeds` is above `both`: what the teacher changes beyond a seed.
    """

    seeds: Estimate
    teachers: Estimate
    both: Estimate
    lead: Estimate


def agreement(y: Array) -> Agreement:
    """Compare the rankings of the students under two teachers with those of two seeds."""
    _, t, r = y.shape
    runs = [(j, k) for j in range(t) for k in range(r)]
    kinds: dict[tuple[bool, bool], list[tuple[Array, Array]]] = {}
    for place, (j, k) in enumerate(runs):
        for other, seed in runs[place + 1 :]:
            kinds.setdefault((j == other, k == seed), []).append((y[:, j, k], y[:, other, seed]))
    pairs = [kinds.get(kind, []) for kind in ((True, False), (False, True), (False, False))]
    nothing = Estimate(np.nan, np.nan, np.nan)
    return Agreement(
        *(lead(each, []) if each else nothing for each in pairs),
        lead(pairs[0], pairs[2]) if pairs[0] and pairs[2] else nothing,
    )
