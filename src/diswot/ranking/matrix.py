"""The matrix of a study of many tables: Kendall's tau of each score with each target."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diswot.errors import UserError
from diswot.ranking.score_columns import ScoreColumns
from diswot.ranking.statistics import falling, kendall

SIZES = ("params", "macs", "depth")  # what a score must beat


@dataclass(frozen=True)
class Target:
    """A column of accuracies of a table, and the tau-b of each score; NaN if it is not defined."""

    table: str
    column: str
    n: int
    taus: Mapping[str, float]

    @property
    def name(self) -> str:
        """Table and column."""
        return f"{self.table} {self.column}"

    @property
    def best_size(self) -> float:
        """The highest tau of params, MACs and depth."""
        return max(
            (tau for name in SIZES if not math.isnan(tau := self.taus.get(name, math.nan))),
            default=math.nan,
        )


@dataclass(frozen=True)
class Summary:
    """How a score does over all targets; those without a tau are left out.

    Attributes:
        n: Number of targets with a tau.
        mean: Mean tau.
        worst: Lowest tau.
        worst_target: Name of the target with the lowest tau.
        at_or_above: Number of targets on which the score is at or above the best of params, MACs
            and depth.
        shortfall: By how much the score is below the best of these three at most; 0 if it is
            nowhere below.
        shortfall_target: Name of the target with the largest shortfall; empty if there is none.
    """

    n: int
    mean: float
    worst: float
    worst_target: str
    at_or_above: int
    shortfall: float
    shortfall_target: str


def target_of(table: str, column: str, sheet: ScoreColumns) -> Target:
    """Compare all scores of a table with one column of accuracies.

    An architecture that lacks a score is left out for that score alone.

    Raises:
        UserError: Fewer than 3 architectures have an accuracy.
    """
    accuracy = np.asarray(sheet.accuracies[column])
    known = np.isfinite(accuracy)
    if known.sum() < 3:
        raise UserError(f"{table} has {known.sum()} accuracies {column}; ranking needs at least 3")
    taus = {}
    for name, values in sheet.scores.items():
        used = known & ~np.isnan(scores := np.asarray(values))
        once = np.ones((1, int(used.sum())))
        taus[name] = float(kendall(scores[used], accuracy[used], once)[0])
    return Target(table, column, int(known.sum()), taus)


def summaries(targets: Sequence[Target]) -> dict[str, Summary]:
    """Summarise each score over all targets, by falling mean."""
    names = dict.fromkeys(name for target in targets for name in target.taus)
    found = {name: _summary(name, targets) for name in names}
    return dict(sorted(found.items(), key=lambda item: falling(item[1].mean)))


def as_dict(targets: Sequence[Target]) -> dict[str, Any]:
    """Return a matrix as plain values for JSON: the targets, and the taus of each score."""
    return {
        "targets": [
            {"table": t.table, "target": t.column, "n": t.n, "best_size": t.best_size}
            for t in targets
        ],
        "scores": {
            name: {"taus": [t.taus.get(name, math.nan) for t in targets], **vars(summary)}
            for name, summary in summaries(targets).items()
        },
    }


def _summary(name: str, targets: Sequence[Target]) -> Summary:
    known = [t for t in targets if not math.isnan(t.taus.get(name, math.nan))]
    if not known:
        return Summary(0, math.nan, math.nan, "", 0, math.nan, "")
    behind = {t.name: t.best_size - t.taus[name] for t in known if not math.isnan(t.best_size)}
    lowest = min(known, key=lambda t: t.taus[name])
    furthest = max(behind, key=lambda key: behind[key], default="")
    shortfall = max(0.0, behind.get(furthest, 0.0))
    return Summary(
        n=len(known),
        mean=float(np.mean([t.taus[name] for t in known])),
        worst=lowest.taus[name],
        worst_target=lowest.name,
        at_or_above=sum(gap <= 0 for gap in behind.values()),
        shortfall=shortfall,
        shortfall_target=furthest if shortfall else "",
    )
