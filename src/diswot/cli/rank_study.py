"""`diswot rank --study`: scores against many tables at once."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diswot.cli import console, workers
from diswot.cli.options import OutputOptions, RankComputeOptions, RankFileOptions
from diswot.cli.rank_scores import names_of, rows_of, scored, target_notes
from diswot.cli.study_file import TableSettings, read_study
from diswot.errors import UserError
from diswot.runs import folder
from diswot.storage.run_files import MATRIX, MATRIX_PAGE
from diswot.utils.agreement import finite

if TYPE_CHECKING:
    from diswot.ranking.matrix import Target
    from diswot.ranking.tables.rows import AccuracyTable
    from diswot.utils.progress import Advance


def rank_study(
    path: Path,
    common: TableSettings,
    compute: RankComputeOptions,
    out: RankFileOptions,
    output: OutputOptions,
) -> None:
    """Score the tables of a study, and compare the scores with all targets.

    The settings `common` hold where the file has none. Each table has a folder in the run folder.
    """
    settings = read_study(path, common)
    tables = [_table(each) for each in settings]
    devices = workers.devices(compute.device, compute.devices)
    targets: list[Target] = []
    notes = [
        f"{each.name}: {text}"
        for each, table in zip(settings, tables, strict=True)
        for column in _columns(each, table)
        for text in target_notes(column, table)
    ]
    with folder.resumable(out.out), console.progress(quiet=output.quiet) as advance:
        for each, table in zip(settings, tables, strict=True):
            targets += _targets(each, table, compute, devices, out, advance)
    result = _result(path, targets, out.out)
    if output.as_json:
        console.show_json(result)
        return
    _show(path, result)
    console.note(*notes, *folder_note(out, f"{MATRIX_PAGE} and {MATRIX}"), quiet=output.quiet)


def folder_note(files: RankFileOptions, names: str) -> list[str]:
    """Return a note on where a rank study is kept; none on scores that were read from a file."""
    if files.out is not None:
        return [f"kept in {files.out}: {names}"]
    return [console.NOT_KEPT] if files.no_out else []


def _table(settings: TableSettings) -> AccuracyTable:
    """Return the rows to score; a mistake in any table is found before anything is scored."""
    names_of(settings)
    table = rows_of(settings)
    _columns(settings, table)
    return table


def _columns(settings: TableSettings, table: AccuracyTable) -> list[str]:
    from diswot.ranking.tables.targets import choose_target

    try:
        names: list[str | None] = [*settings.targets] or [None]
        return [choose_target(table.accuracies, name) for name in names]
    except UserError as error:
        raise UserError(f"{settings.name}: {error}") from error


def _targets(
    settings: TableSettings,
    table: AccuracyTable,
    compute: RankComputeOptions,
    devices: tuple[str, ...],
    files: RankFileOptions,
    advance: Advance,
) -> list[Target]:
    """Score one table and compare with its targets; its folder is a rank study as any other."""
    from diswot.ranking.matrix import target_of
    from diswot.ranking.score_columns import write_score_columns
    from diswot.storage.run_files import SCORES

    place = None if files.out is None else files.out / settings.name

    def move(title: str, done: int, total: int, note: str = "", *, line: bool = False) -> None:
        advance(f"{settings.name}: {title}", done, total, note, line=line)

    sheet = scored(settings, table, place, compute, devices, move, resume=files.resume)
    if place is not None:
        write_score_columns(place / SCORES, sheet)
    return [target_of(settings.name, column, sheet) for column in _columns(settings, table)]


def _result(path: Path, targets: Sequence[Target], out: Path | None) -> dict[str, Any]:
    """Return the matrix, and keep it in the run folder."""
    from diswot.ranking import matrix
    from diswot.utils import environment, files

    result: dict[str, Any] = finite({"study": str(path), **matrix.as_dict(targets)})
    if out is not None:
        from diswot.reports.page import write_matrix_page

        files.write_json(out / MATRIX, {**environment.provenance(), **result})
        command = shlex.join(map(str, environment.command()))
        write_matrix_page(out / MATRIX_PAGE, path.stem, result, command)
    return result


def _show(path: Path, result: dict[str, Any]) -> None:
    from diswot.reports.formats import decimal

    rows = []
    for name, row in result["scores"].items():
        mean, behind, worst = (decimal(row[key], ".3f") for key in ("mean", "shortfall", "worst"))
        counted = f"{row['at_or_above']} of {row['n']}"
        cells = [mean, counted, behind, row["shortfall_target"], worst, row["worst_target"]]
        rows.append([name, *cells])
    columns = ["score", "mean tau", "at or above", "behind", "on", "worst", "on"]
    title = f"{path.name}: {len(result['targets'])} targets; sizes are params, MACs and depth"
    console.table(title, columns, rows)
