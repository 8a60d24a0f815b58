"""What the pages that benchmarks write have in common."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev

import numpy as np

from diswot.ranking.statistics import Array, kendall, midranks

DOCS = Path("docs")
AZ_NAS = ("expressivity", "progressivity", "trainability", "complexity")


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [" | ".join(columns), "|".join(["---", *["---:"] * (len(columns) - 1)])]
    return "\n".join(f"| {line} |" for line in [*lines, *(" | ".join(row) for row in rows)])


def number(value: float, digits: int = 2) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def spread(values: Sequence[float]) -> str:
    return f"{fmean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else number(values[0])


def az_nas(columns: Mapping[str, Array]) -> Array:
    """The four parts of AZ-NAS as the paper combines them: the sum of the logarithms of the ranks.

    NaN where one is missing; minus infinity ranks lowest.
    """
    parts = [np.asarray(columns[part]) for part in AZ_NAS]
    there = ~np.isnan(parts).any(0)
    once = np.ones((1, int(there.sum())))
    total = np.full(len(there), np.nan)
    total[there] = sum(np.log(midranks(part[there], once)[0] / there.sum()) for part in parts)
    return total


def plain_tau(score: Array, accuracy: Array) -> float:
    """Kendall's tau-b where both are known."""
    there = ~np.isnan(score) & ~np.isnan(accuracy)
    return float(kendall(score[there], accuracy[there], np.ones((1, int(there.sum()))))[0])
