"""A run as one page: what was found, how, and what to make of it."""

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
    """Write what a run folder holds as one HTML page that needs no network and no file beside it.

    Args:
        run: Folder of `diswot search`, `distill` or `rank`, or one with such folders in it; a
            search need not be finished.
        out: The page; `report.html` in the run folder if not given.
        storage: Optuna storage URL of a search that keeps its trials there.
        study: Name of the study in it.
        networks: Whether teacher and students may be built, to show their depth and what they
            see. A network of a user's own file runs that file.

    Returns:
        Where the page is.

    Raises:
        UserError: The folder holds nothing of diswot, or the page cannot be written.
    """
    folder = Path(run)
    page = render(load_run(folder, storage, study), networks=networks)
    place = Path(out) if out is not None else folder / REPORT
    files.write(place, lambda temporary: Path(temporary).write_text(page, encoding="utf-8"))
    return place
