"""`diswot report`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from typer import Argument

from diswot.cli import console
from diswot.cli.grouping import grouped
from diswot.cli.options import OutputOptions

_Run = Annotated[
    Path, Argument(metavar="RUN", help="Folder of a search, a training or a rank study.")
]


@dataclass(frozen=True)
class ReportOptions:
    """Options of the contents and the place of a page.

    Attributes:
        out: File of the page. Default: RUN/report.html.
        storage: Optuna storage URL of the search's trials. Default: the one that RUN records.
        study: Name of the Optuna study in the storage. Default: the one that RUN records.
        networks: Build the teacher and the students, for their sizes and what they see.
    """

    headings: ClassVar = {"Storage": "storage study"}

    out: Path | None = None
    storage: str | None = None
    study: str | None = None
    networks: bool = True


@grouped("out", "networks")
def report(run: _Run, *, page: ReportOptions, output: OutputOptions) -> None:
    """Write a run as one HTML page that needs no network."""
    from diswot.reports import report as pages

    with console.progress(quiet=output.quiet):
        place = pages.report(run, **asdict(page))
    if output.as_json:
        console.show_json({"report": str(place)})
    else:
        console.note(f"written to {place}", quiet=output.quiet)
