"""The page of a comparison of several runs."""

from __future__ import annotations

from pathlib import Path

from diswot.reports import charts
from diswot.reports.page import fill
from diswot.runs.compared import RunComparison
from diswot.utils import files


def write_compare_page(path: Path, comparison: RunComparison) -> None:
    """Write a comparison of runs as one HTML page that loads nothing from elsewhere.

    Accuracies have a chart for each number of epochs and each data set.

    Args:
        path: File of the page.
        comparison: The runs.
    """
    drawn = {str(each): charts.accuracy_by_params(comparison, each) for each in
             comparison.conditions()}  # fmt: skip
    page = fill("compare.html", drawn, comparison=comparison, titles=list(drawn))
    files.write(path, lambda temporary: Path(temporary).write_text(page, encoding="utf-8"))
