"""The report: a run folder as one HTML page."""

from __future__ import annotations

from pathlib import Path

from diswot.reports.page import render
from diswot.runs.read import load_run
from diswot.utils import files

REPORT = "report.html"


def report(
    run: str | Path,
    out: str | Path | None = None,
    *,
    storage: str | None = None,
    study: str | None = None,
    networks: bool = True,
) -> Path:
    """Write a run folder as one HTML page that loads nothing from elsewhere.

    Args:
        run: Folder of `diswot search`, `distill` or `rank`, or a folder that holds such folders.
            A search may be unfinished.
        out: Path of the page; by default `report.html` in the run folder.
        storage: Optuna storage URL of the search's study; by default the one recorded in the run.
        study: Name of the study in that storage; by default the one recorded in the run.
        networks: Whether to build teacher and students, for their depth and feature maps. Building
            a network of a user's file runs that file.

    Returns:
        Path of the page.

    Raises:
        UserError: The folder holds no run of diswot, or the page cannot be written.
    """
    folder = Path(run)
    page = render(load_run(folder, storage, study), networks=networks)
    place = Path(out) if out is not None else folder / REPORT
    files.write_text(place, page)
    return place
