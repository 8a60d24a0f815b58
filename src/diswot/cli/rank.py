"""`diswot rank`."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diswot.cli import console, inputs, options
from diswot.cli import workers as workplaces
from diswot.errors import UserError
from diswot.runs import folder
from diswot.storage.run_files import RANKED, SCORES

if TYPE_CHECKING:
    from diswot.ranking.rank import Ranking
    from diswot.ranking.score_columns import ScoreColumns
    from diswot.ranking.score_table import Setting
    from diswot.ranking.tables.rows import AccuracyTable

BASELINES = ("params", "macs", "depth")
VANILLA = "vanilla"

_COLUMNS = {
    "kendall": "tau-b",
    "spearman": "Spearman",
    "pearson": "Pearson",
    "precision_top10": "in top 10%",
    "regret": "lost %",
    "kendall_given_params": "tau given params",
    "kendall_within_deciles": "tau in deciles",
}


def rank(
    table: options.Table = None,
    space: options.Space = "s0",
    teacher: options.Teacher = "resnet56",
    data: options.DataName = "noise",
    *,
    proxies: options.Proxies = "default,diswot,semantic,relation",
    target: options.Target = None,
    limit: options.Limit = None,
    teacher_weights: options.Weights = None,
    pretrained: options.Pretrained = False,
    mean: options.Mean = None,
    std: options.Std = None,
    data_root: options.DataRoot = None,
    classes: options.Classes = None,
    image_size: options.ImageSize = None,
    batch_size: options.ScoringBatch = 64,
    repeats: options.Repeats = 1,
    init: options.Init = None,
    seed: options.Seed = 0,
    seed_sd: options.SeedDeviation = None,
    resamples: options.Resamples = 1000,
    workers: options.Workers = 1,
    device: options.Device = None,
    devices: options.Devices = None,
    out: options.RankFolder = None,
    resume: options.Resume = False,
    scores: options.ScoresFile = None,
    again: options.ScoresAgain = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Compare scores with accuracies, beside params, MACs and depth."""
    if (again is None) == (table is None):
        raise UserError("name either a --table to score, or the scores to read with --from")
    if resume and (table is None or out is None):
        raise UserError("name what to go on with: the --out of a study of a --table")
    places = workplaces.places(device, devices)
    with folder.resumable(out), console.progress(quiet=quiet) as advance:
        if table is None:
            held = _read(again)
        else:
            job = {
                "table": str(table.resolve()),
                "space": inputs.from_root(space),
                "teacher": inputs.from_root(teacher),
                "teacher_weights": teacher_weights and str(teacher_weights.resolve()),
                "pretrained": pretrained,
                **inputs.normalisation(mean, std),
                "data": inputs.from_root(data),
                "data_root": data_root and str(data_root.resolve()),
                "classes": classes,
                "image_size": image_size,
                "batch_size": batch_size,
                "repeats": repeats,
                "init": init,
                "seed": seed,
                "device": places[0].partition(":")[0] if places else "cpu",
            }
            names, asked = _names(proxies), _table(job, target, limit)
            if out is not None:
                folder.begin(out, job, resume=resume)
            held = _score(job, asked, names, out, workers, places, advance)
        chosen = _target(held, target)
        rankings = _rank(held, chosen, resamples, seed_sd, seed)
    result = {
        "table": str(table or again),
        "target": chosen,
        "n": len(held.names),
        "rows": {name: row.as_dict() for name, row in rankings.items()},
    }
    _keep(result, held, rankings, out, scores)
    if as_json:
        console.show_json(result)
        return
    _show(result, rankings)
    _tell_missing(rankings, quiet)
    if out is not None:
        console.note(f"kept in {out}: rank.json, scores.csv and plots", quiet=quiet)


def _names(proxies: str) -> list[str]:
    """Proxies asked for, and the baselines that no table goes without."""
    from diswot.proxies.registry import PROXIES, get_proxy

    asked = list(PROXIES) if proxies == "all" else [name.strip() for name in proxies.split(",")]
    for name in asked:
        get_proxy(name)
    return list(dict.fromkeys([*asked, *BASELINES]))


def setting(job: dict[str, Any]) -> Setting:
    """The scorer and the space of a job; each worker process makes its own."""
    from diswot.proxies.scorer import scorer
    from diswot.spaces.registry import create_space
    from diswot.utils import devices

    source = ("teacher", "teacher_weights", "pretrained", "data")
    named = (*source, "classes", "image_size", "data_root")
    master = inputs.master(*(job[name] for name in named), mean=job["mean"], std=job["std"])
    images = master.images
    fixed = scorer(
        master.model(),
        inputs.scoring_batches(images, job["batch_size"], job["repeats"], job["seed"]),
        init=job["init"],
        seed=job["seed"],
        trained_teacher=master.trained,
        device=devices.get_device(job.get("device", devices.CPU)),
    )
    return fixed, create_space(job["space"], len(images.classes), images.size)


def _table(job: dict[str, Any], target: str | None, limit: int | None) -> AccuracyTable:
    """What is to be scored; that it has the target is known before, not after."""
    from diswot.ranking.tables.read import choose_target, read_table, sample

    table = read_table(job["table"], job["space"])
    choose_target(table.targets, target)
    return table if limit is None else sample(table, limit, job["seed"])


def _score(
    job: dict[str, Any],
    table: AccuracyTable,
    names: list[str],
    out: Path | None,
    workers: int,
    places: tuple[str, ...],
    advance: console.Advance,
) -> ScoreColumns:
    from diswot.proxies.registry import by_init
    from diswot.ranking.score_columns import score_columns
    from diswot.ranking.score_table import Scores, score_table

    rows = {row.name: row.params for row in table.rows}
    found = dict.fromkeys(rows, Scores())
    for own, group in by_init(names, job["init"]).items():
        jobs = [{**job, "init": own, "device": place} for place in places or ("cpu",)]
        first, *others = (partial(setting, each) for each in jobs)
        scored = score_table(
            first,
            rows,
            group,
            keep=None if out is None else out / "scores.jsonl",
            workers=max(workers, len(jobs)),
            others=others,
            on_row=partial(advance, f"scoring, {own}"),
        )
        found = {name: found[name] | new for name, new in scored.items()}
    return score_columns(table, found, names)


def _read(path: Path | None) -> ScoreColumns:
    from diswot.ranking.score_columns import read_score_columns

    assert path is not None
    held = read_score_columns(path)
    if "params" not in held.scores or not held.accuracies:
        raise UserError(f"{path} needs a column params and one of accuracies")
    return held


def _target(held: ScoreColumns, name: str | None) -> str:
    from diswot.ranking.tables.read import choose_target

    return choose_target(held.accuracies, name)


def _rank(
    held: ScoreColumns, target: str, resamples: int, deviation: float | None, seed: int
) -> dict[str, Ranking]:
    """Rows by falling tau."""
    import numpy as np

    from diswot.ranking.rank import CEILING
    from diswot.ranking.rank import rank as compare
    from diswot.ranking.tables.read import vanilla_column

    alone = vanilla_column(target, held.accuracies)
    rows = compare(
        {**held.scores, **({VANILLA: held.accuracies[alone]} if alone else {})},
        held.accuracies[target],
        held.scores["params"],
        resamples=resamples,
        seed_deviation=deviation,
        random=np.random.default_rng(seed),
    )

    def place(name: str) -> tuple[bool, float]:
        tau = rows[name].statistics["kendall"].value
        return name == CEILING, math.inf if math.isnan(tau) else -tau

    return {name: rows[name] for name in sorted(rows, key=place)}


def _keep(
    result: dict[str, Any],
    held: ScoreColumns,
    rankings: dict[str, Ranking],
    out: Path | None,
    scores: Path | None,
) -> None:
    from diswot.ranking.score_columns import write_score_columns
    from diswot.utils import files

    if scores is not None:
        write_score_columns(scores, held)
    if out is None:
        return
    from diswot.reports import plots

    write_score_columns(out / SCORES, held)
    files.write_json(out / RANKED, console.finite(result))
    plots.save(plots.bars(plots.bar_data({result["target"]: rankings})), out / "tau")
    plots.save(plots.scatter(plots.scatter_data(held, result["target"], rankings)), out / "scores")


def _show(result: dict[str, Any], rankings: dict[str, Ranking]) -> None:
    lines = []
    for name, row in rankings.items():
        cells = [_cell(row, statistic) for statistic in _COLUMNS]
        lines.append([name, *cells, str(row.n)])
    title = f"{result['target']} of {result['n']} architectures (below: 95 % interval)"
    console.table(title, ["score", *_COLUMNS.values(), "n"], lines)


def _cell(row: Ranking, statistic: str) -> str:
    found = row.statistics.get(statistic)
    if found is None or math.isnan(found.value):
        return "-"
    digits = 2 if statistic == "regret" else 3
    value = f"{found.value:.{digits}f}"
    return value if math.isnan(found.low) else f"{value}\n{found.low:.2f} {found.high:.2f}"


def _tell_missing(rankings: dict[str, Ranking], quiet: bool) -> None:
    """Say what was left out, and where scores tie."""
    for name, row in rankings.items():
        facts = {
            f"{row.missing} without a score or accuracy left out": row.missing,
            f"{row.lowest} with the lowest score": row.lowest,
            f"{row.tied:.0%} of pairs tied": row.tied >= 0.01,
        }
        if said := ", ".join(text for text, there in facts.items() if there):
            console.note(f"{name}: {said}", quiet=quiet)
