"""Scores of the architectures of a table, for `diswot rank`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diswot.cli import inputs, score_names
from diswot.cli.options import RankComputeOptions, ScoringOptions
from diswot.cli.study_file import TableSettings
from diswot.runs import folder
from diswot.storage.run_files import SCORED_ROWS
from diswot.utils.user_code import rooted

if TYPE_CHECKING:
    from diswot.ranking.score_columns import ScoreColumns
    from diswot.ranking.score_table import TableScorer
    from diswot.ranking.tables.rows import AccuracyTable
    from diswot.utils.progress import Advance

BASELINES = ("params", "macs", "depth", "size")
VANILLA = "vanilla"


def names_of(settings: TableSettings) -> list[str]:
    """Return the scores that are asked for, and the sizes that no study leaves out."""
    init = settings.scoring.init
    proxies = score_names.proxy_names(settings.proxies, settings.teacher, init)
    return list(dict.fromkeys([*proxies, *BASELINES]))


def _job(settings: TableSettings, devices: tuple[str, ...]) -> dict[str, Any]:
    """Return the configuration of the study of a table, for the run folder and for workers."""
    scoring = settings.scoring
    return {
        "table": inputs.absolute(settings.rows.table),
        "space": rooted(settings.space),
        **inputs.teacher_facts(settings.teacher),
        **inputs.image_facts(settings.data),
        "batch_size": scoring.batch_size,
        "repeats": scoring.repeats,
        "init": scoring.init,
        "seed": scoring.seed,
        "device": devices[0].partition(":")[0] if devices else "cpu",
    }


def rows_of(settings: TableSettings) -> AccuracyTable:
    """Read the rows of a table that the settings choose."""
    from diswot.ranking.tables import read as tables

    wanted = settings.rows
    assert wanted.table is not None
    table = tables.read_table(wanted.table, rooted(settings.space), wanted.where or ())
    if wanted.limit is None:
        return table
    return tables.sample(table, wanted.limit, settings.scoring.seed)


def target_notes(target: str, table: AccuracyTable | None) -> list[str]:
    """Return notes on a target that is turned round, and on values that cannot be accuracies.

    Scores that were read again have no table.
    """
    from diswot.ranking.tables.targets import turned_round

    count = 0 if table is None else table.impossible.get(target, 0)
    missing = f"{target}: {count} values that cannot be accuracies count as missing"
    return [*filter(None, [turned_round(target)]), *([missing] if count else [])]


def scored(
    settings: TableSettings,
    table: AccuracyTable,
    out: Path | None,
    compute: RankComputeOptions,
    devices: tuple[str, ...],
    advance: Advance,
    *,
    resume: bool,
) -> ScoreColumns:
    """Score every architecture of a table, one that is there several times once.

    The run folder keeps each row that is scored, and may hold some of an interrupted run. Each of
    several devices has one process at least.
    """
    job, proxies = _job(settings, devices), names_of(settings)
    if out is not None:
        folder.begin(out, job, resume=resume)
    from diswot.proxies.registry import by_init
    from diswot.ranking import score_columns
    from diswot.ranking.score_table import Scores, score_table

    one = {json.dumps(row.params): row for row in reversed(table.rows)}
    rows = {row.name: row.params for row in one.values()}
    found = dict.fromkeys(rows, Scores())
    for init, group in by_init(proxies, job["init"]).items():
        jobs = [{**job, "init": init, "device": device} for device in devices or ("cpu",)]
        first, *others = (partial(setting, each, tuple(group)) for each in jobs)
        new = score_table(
            first,
            rows,
            group,
            keep=None if out is None else out / SCORED_ROWS,
            workers=max(compute.workers, len(jobs)),
            others=others,
            on_row=partial(advance, f"scoring, {init}"),
        )
        found = {name: found[name] | new[name] for name in new}
    same = {row.name: found[one[json.dumps(row.params)].name] for row in table.rows}
    return score_columns.score_columns(table, same, proxies)


def setting(job: Mapping[str, Any], proxies: Sequence[str]) -> TableScorer:
    """Return the scorer and the space of a job; each worker process makes its own.

    Where no score needs a teacher, none is built.
    """
    from diswot.proxies.scorer import scorer
    from diswot.spaces.registry import create_space
    from diswot.utils.devices import get_device

    named = inputs.teacher_of(inputs.images_of(job), inputs.teacher_options(job))
    scoring = ScoringOptions(job["batch_size"], job["repeats"], job["init"], job["seed"])
    fixed = scorer(
        named.model_for(proxies, job["init"]),
        inputs.scoring_batches(named.images, scoring),
        proxies,
        init=job["init"],
        seed=job["seed"],
        trained_teacher=named.trained,
        device=get_device(job["device"]),
        num_classes=len(named.images.classes),
    )
    return fixed, create_space(job["space"], len(named.images.classes), named.images.size)
