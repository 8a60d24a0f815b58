"""`diswot report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from diswot.cli import console
from diswot.cli.grouping import grouped
from diswot.cli.options import OutputOptions

_Run = Annotated[
    Path, Argument(metavar="RUN", help="Folder of a search, a training or a rank study.")
]
_Out = Annotated[Path | None, Option("--out", help="File of the page. Default: RUN/report.html.")]
_Storage = Annotated[
    str | None,
    Option(
        help="Optuna storage URL of the search's trials. Default: the one that RUN records.",
        rich_help_panel="Storage",
    ),
]
_Study = Annotated[
    str | None,
    Option(
        help="Name of the Optuna study in the storage. Default: the one that RUN records.",
        rich_help_panel="Storage",
    ),
]
_Networks = Annotated[
    bool, Option(help="Build the teacher and the students, for their sizes and what they see.")
]


@grouped("out", "networks")
def report(
    run: _Run,
    *,
    out: _Out = None,
    storage: _Storage = None,
    study: _Study = None,
    networks: _Networks = True,
    output: OutputOptions,
) -> None:
    """Write a run as one HTML page that needs no network."""
    from diswot.reports import report as pages

    with console.progress(quiet=output.quiet):
        place = pages.report(run, out, storage=storage, study=study, networks=networks)
    if output.as_json:
        console.show_json({"report": str(place)})
    else:
        console.note(f"written to {place}", quiet=output.quiet)
