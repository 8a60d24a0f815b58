"""What the pages that benchmarks write have in common."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean, stdev

import numpy as np

from diswot.ranking.statistics import Array, kendall
from diswot.utils import files

DOCS = Path("docs")
START, END = "<!-- study: from here", "<!-- study: to here -->"


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [" | ".join(columns), "|".join(["---", *["---:"] * (len(columns) - 1)])]
    return "\n".join(f"| {line} |" for line in [*lines, *(" | ".join(row) for row in rows)])


def number(value: float, digits: int = 2) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def spread(values: Sequence[float]) -> str:
    return f"{fmean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else number(values[0])


def plain_tau(score: Array, accuracy: Array) -> float:
    """Kendall's tau-b where both are known."""
    there = ~np.isnan(score) & ~np.isnan(accuracy)
    return float(kendall(score[there], accuracy[there], np.ones((1, int(there.sum()))))[0])


def write_page(text: str, path: Path) -> None:
    """Put the figures between the marks of a page."""
    before, _, rest = path.read_text().partition(START)
    mark, _, rest = rest.partition("\n")
    after = rest.partition(END)[2]
    files.write(path, lambda temporary: Path(temporary).write_text(
        f"{before}{START}{mark}\n\n{text}\n{END}{after}"
    ))  # fmt: skip
