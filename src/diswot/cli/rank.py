"""`diswot rank`."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from diswot.cli import console, workers
from diswot.cli.grouping import grouped
from diswot.cli.options import (
    DataOptions,
    IntervalOptions,
    OutputOptions,
    RankComputeOptions,
    RankFileOptions,
    RankProxyOptions,
    ScoringOptions,
    TableOptions,
    TeacherOptions,
)
from diswot.cli.rank_scores import VANILLA, names_of, rows_of, scored, target_notes
from diswot.cli.rank_study import folder_note, rank_study
from diswot.cli.study_file import TableSettings
from diswot.errors import UserError
from diswot.runs import folder
from diswot.utils.agreement import finite
from diswot.utils.user_code import short_name

if TYPE_CHECKING:
    from pathlib import Path

    from diswot.ranking.rank import Ranking
    from diswot.ranking.score_columns import ScoreColumns
    from diswot.ranking.tables.rows import AccuracyTable

_COLUMNS = {
    "kendall": "tau-b",
    "spearman": "Spearman",
    "pearson": "Pearson",
    "precision_top10": "in top 10%",
    "regret": "lost %",
    "kendall_given_params": "tau given params",
    "kendall_within_deciles": "tau in deciles",
}


@grouped("table", "space", "teacher", "data", "proxies", "target", "out")
def rank(
    *,
    table: TableOptions,
    scores: RankProxyOptions,
    teacher: TeacherOptions,
    data: DataOptions,
    scoring: ScoringOptions,
    interval: IntervalOptions,
    compute: RankComputeOptions,
    files: RankFileOptions,
    output: OutputOptions,
) -> None:
    """Compare scores with accuracies, beside the plain sizes."""
    _check_place(table, files)
    settings = TableSettings("", [], scores.space, scores.proxies, table, teacher, data, scoring)
    with ExitStack() as stack:
        files = replace(files, out=stack.enter_context(_run_folder(table, files)))
        if table.study is not None:
            rank_study(table.study, settings, compute, files, output)
            return
        devices = workers.devices(compute.device, compute.devices)
        stack.enter_context(folder.resumable(files.out))
        advance = stack.enter_context(console.progress(quiet=output.quiet))
        rows: AccuracyTable | None = None
        if files.again is not None:
            sheet = _read(files.again)
        else:
            names_of(settings)  # a mistake in them is found before a large table is read
            rows = rows_of(settings)
            _target(rows, table.target)  # a missing one is found before anything is scored
            sheet = scored(
                settings, rows, files.out, compute, devices, advance, resume=files.resume
            )
        target = _target(sheet, table.target)
        rankings = _rank(sheet, target, interval, scoring.seed)
    result: dict[str, Any] = {"table": str(table.table or files.again), "target": target}
    result["n"] = len(sheet.names)
    result["rows"] = {name: row.as_dict() for name, row in rankings.items()}
    _keep(result, sheet, rankings, files)
    if output.as_json:
        console.show_json(result)
        return
    _show(result, rankings)
    kept = folder_note(files, "rank.json, scores.csv and plots")
    console.note(*target_notes(target, rows), *_remarks(rankings), *kept, quiet=output.quiet)


def _run_folder(table: TableOptions, files: RankFileOptions) -> AbstractContextManager[Path | None]:
    """Give the folder that keeps the results; scores that are read need none."""
    path = table.table or table.study
    name = "" if path is None else path.name.partition(".")[0]
    read = files.out is None and files.again is not None
    return folder.chosen(files.out, f"{name}-rank", no_out=files.no_out or read)


def _check_place(table: TableOptions, files: RankFileOptions) -> None:
    """Refuse options that name no table, or two, or nothing to resume."""
    if table.study is not None:
        _check_study(table, files)
        return
    if (files.again is None) == (table.table is None):
        raise UserError("name either a --table to score, or the scores to read with --from")
    if table.table is None and (table.where or table.limit):
        name = "--where" if table.where else "--limit"
        raise UserError(f"{name} chooses rows of a --table, not of the scores of --from")
    if files.resume and (table.table is None or files.out is None):
        raise UserError("name what to resume: the --out of a rank study of a --table")


def _check_study(table: TableOptions, files: RankFileOptions) -> None:
    """Refuse options that go with one table alone."""
    given = {"--table": table.table, "--target": table.target, "--from": files.again}
    given |= {"--scores": files.scores}
    if name := next((name for name, value in given.items() if value is not None), None):
        raise UserError(f"{name} goes with one table, not with a --study")
    if files.resume and files.out is None:
        raise UserError("name what to resume: the --out of a rank study")


def _read(path: Path) -> ScoreColumns:
    """Return scores that an earlier rank study wrote."""
    from diswot.ranking import score_columns

    sheet = score_columns.read_score_columns(path)
    if "params" not in sheet.scores or not sheet.accuracies:
        raise UserError(f"{path} needs a column params and one of accuracies")
    return sheet


def _target(sheet: ScoreColumns | AccuracyTable, name: str | None) -> str:
    from diswot.ranking.tables.targets import choose_target

    return choose_target(sheet.accuracies, name)


def _rank(
    sheet: ScoreColumns, target: str, interval: IntervalOptions, seed: int
) -> dict[str, Ranking]:
    """Return the statistics of each score, by falling tau."""
    import numpy as np

    from diswot.ranking.rank import CEILING
    from diswot.ranking.rank import rank as compare
    from diswot.ranking.statistics import falling
    from diswot.ranking.tables.targets import vanilla_column

    alone = vanilla_column(target, sheet.accuracies)
    rows = compare(
        {**sheet.scores, **({VANILLA: sheet.accuracies[alone]} if alone else {})},
        sheet.accuracies[target],
        sheet.scores["params"],
        resamples=interval.resamples,
        seed_deviation=interval.seed_sd,
        random=np.random.default_rng(seed),
    )
    order = sorted(rows, key=lambda name: (name == CEILING, falling(rows[name].tau)))
    return {name: rows[name] for name in order}


def _keep(
    result: dict[str, Any],
    sheet: ScoreColumns,
    rankings: dict[str, Ranking],
    files: RankFileOptions,
) -> None:
    """Write the scores, and the run folder with its plots."""
    from diswot.ranking import score_columns

    if files.scores is not None:
        score_columns.write_score_columns(files.scores, sheet)
    if (out := files.out) is None:
        return
    from diswot.reports import plots

    folder.write_rank_study(out, finite(result), sheet)
    plots.save(plots.bars(result["target"], plots.bar_data(rankings)), out / "tau")
    plots.save(plots.scatter(plots.scatter_data(sheet, result["target"], rankings)), out / "scores")


def _show(result: dict[str, Any], rankings: dict[str, Ranking]) -> None:
    lines = []
    for name, row in rankings.items():
        cells = [_cell(row, statistic) for statistic in _COLUMNS]
        lines.append([short_name(name), *cells, str(row.n)])
    title = f"{result['target']} of {result['n']} architectures (below: 95 % interval)"
    console.table(title, ["score", *_COLUMNS.values(), "n"], lines)


def _cell(row: Ranking, statistic: str) -> str:
    found = row.statistics.get(statistic)
    if found is None or math.isnan(found.value):
        return "-"
    digits = 2 if statistic == "regret" else 3
    value = f"{found.value:.{digits}f}"
    return value if math.isnan(found.low) else f"{value}\n{found.low:.2f} {found.high:.2f}"


def _remarks(rankings: dict[str, Ranking]) -> list[str]:
    """Return notes on what was left out of each row, and on scores that tie."""
    notes = []
    for name, row in rankings.items():
        facts = {
            f"{row.missing} without a score or accuracy left out": row.missing,
            f"{row.lowest} with the lowest score": row.lowest,
            f"{row.tied:.0%} of pairs tied": row.tied >= 0.01,
        }
        if held := ", ".join(text for text, there in facts.items() if there):
            notes.append(f"{short_name(name)}: {held}")
    return notes
