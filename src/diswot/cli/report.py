"""`diswot report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from diswot.cli import console, options

_Run = Annotated[Path, Argument(help="Folder of a search, a training or a rank study.")]
_Out = Annotated[Path | None, Option("--out", help="The page; else RUN/report.html.")]
_Storage = Annotated[str | None, Option(help="Optuna storage URL, where the search has one.")]
_Study = Annotated[str | None, Option(help="Name of the study in the storage.")]
_Networks = Annotated[
    bool, Option(help="Build teacher and students, for their sizes and what they see.")
]


def report(
    run: _Run,
    *,
    out: _Out = None,
    storage: _Storage = None,
    study: _Study = None,
    networks: _Networks = True,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a run as one HTML page that needs no network."""
    import optuna

    from diswot.reports import report as pages

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with console.progress(quiet=quiet):
        place = pages.report(run, out, storage=storage, study=study, networks=networks)
    if as_json:
        console.show_json({"report": str(place)})
    else:
        console.note(f"written to {place}", quiet=quiet)
