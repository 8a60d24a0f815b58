"""`diswot compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from diswot.cli import console
from diswot.cli.grouping import grouped
from diswot.cli.help import USUAL
from diswot.cli.options import OutputOptions

_Runs = Annotated[list[Path], Argument(metavar="RUN", help="Folders of searches or of trainings.")]
_Out = Annotated[
    Path | None,
    Option(
        "--out",
        help="HTML file of the table and its charts. Default: none.",
        rich_help_panel=USUAL,
    ),
]


@grouped()
def compare(runs: _Runs, *, out: _Out = None, output: OutputOptions) -> None:
    """Compare several runs: their settings, costs and accuracies."""
    from diswot.runs.compared import compare_runs
    from diswot.utils.units import show_number

    found = compare_runs(*runs)
    if out is not None:
        from diswot.reports.page import write_compare_page

        write_compare_page(out, found)
    if output.as_json:
        console.show_json(found.as_dict())
        return
    rows = [[name, *cells] for name, cells in found.table().items()]
    names = [run.folder for run in found.runs]
    console.table(show_number(len(runs), "run"), ["", *names], rows, text=1 + len(names))
    if out is not None:
        console.note(f"written to {out}", quiet=output.quiet)
