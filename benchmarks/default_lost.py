"""Accuracy lost by trusting a score, in points, over budgets: for `default.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev

import found
import numpy as np
from found import SIXTHS, Ground
from numpy.typing import NDArray

from diswot.cli.rank_scores import BASELINES
from diswot.ranking.score_columns import ScoreColumns
from diswot.ranking.statistics import Array

DRAWN, SEARCHES = 200, 5  # candidates that a search looks at, where a table has more; searches

Columns = dict[str, Array]
Losses = dict[str, list[list[float]]]  # by score: of each search, within each budget


def searches(held: ScoreColumns, columns: Columns) -> list[NDArray[np.intp]]:
    """The rows that each of some searches looks at: all of a small table, else `DRAWN` at random.

    Only rows that all scores are known of.
    """
    known = np.flatnonzero(~np.any([np.isnan(values) for values in columns.values()], axis=0))
    if len(known) <= DRAWN:
        return [known]
    random = np.random.default_rng(0)
    return [random.permutation(known)[:DRAWN] for _ in range(SEARCHES)]


def lost(by_search: Sequence[Sequence[float]]) -> list[str]:
    """Points lost: over all budgets, with the spread over searches, and without a budget."""
    means = [fmean(row) for row in by_search]
    over = f" ± {stdev(means):.2f}" if len(means) > 1 else ""
    return [f"{fmean(means):.2f}{over}", f"{fmean(row[-1] for row in by_search):.2f}"]


def told(name: str, losses: Mapping[str, Losses], more: Mapping[str, str]) -> Iterator[list[str]]:
    """A row for each target and score, and one for the mean of all targets."""
    everything = dict(losses)
    if len(losses) > 1:
        labels = next(iter(losses.values())).keys()
        everything["mean"] = {
            label: np.mean([each[label] for each in losses.values()], axis=0) for label in labels
        }
    for target, each in everything.items():
        head = f"{name}, mean of targets" if target == "mean" else f"{name}, `{target}`"
        for label, by_search in each.items():
            yield [head, label, *lost(by_search), *([more.get(label, "")] if more else [])]


def picked(name: str, targets: Sequence[str], held: ScoreColumns) -> Iterator[list[str]]:
    """Accuracy lost by each score's pick among rows that were scored, over budgets."""
    losses = {target: picks(target, held) for target in targets}
    yield from told(name, losses, {})


def picks(target: str, held: ScoreColumns) -> Losses:
    names = [n for n in ("default", "diswot", *BASELINES) if n in held.scores]
    columns = {n: np.array(held.scores[n]) for n in names}
    accuracy, params = np.array(held.accuracies[target]), columns["params"]
    limits = [np.quantile(params, sixth / SIXTHS[-1]) for sixth in SIXTHS]
    looked_at = searches(held, columns)

    def over(pick: Callable[[NDArray[np.intp]], float]) -> list[list[float]]:
        each = [[rows[params[rows] <= limit] for limit in limits] for rows in looked_at]
        return [[float(accuracy[r].max() - pick(r)) for r in rows if len(r)] for rows in each]

    def by(score: Array) -> Callable[[NDArray[np.intp]], float]:
        return lambda r: float(accuracy[r[np.lexsort((params[r], -score[r]))[0]]])

    by_score = {n: over(by(columns[n])) for n in names}
    return {**by_score, "a random pick": over(lambda r: float(np.nanmean(accuracy[r])))}


def searched(name: str, targets: Sequence[str], folder: Path) -> Iterator[list[str]]:
    """Accuracy lost by what each search returned, over budgets, and how many were scored."""
    ground = Ground(name, folder)
    ran: dict[str, dict[tuple[int, int], found.Search]] = {}
    for each in found.kept(name):
        label = each.score if each.sampler == "evolution" else f"{each.score}, random sampling"
        ran.setdefault(label, {})[each.seed, each.sixth] = each
    losses = {target: returned(ground, target, ran) for target in targets}
    counts = {label: f"{fmean(s.scored for s in by.values()):.0f}" for label, by in ran.items()}
    yield from told(name, losses, counts | {"a random pick": "0"})


def returned(
    ground: Ground, target: str, ran: Mapping[str, Mapping[tuple[int, int], found.Search]]
) -> Losses:
    accuracy, random = found.accuracies(ground, target), np.random.default_rng(0)
    values = np.array([accuracy[row.name] for row in ground.rows])
    inside = {sixth: values[ground.params <= ground.limit(sixth)] for sixth in SIXTHS}

    def over(got: Callable[[int, int], float]) -> list[list[float]]:
        return [[inside[x].max() - got(seed, x) for x in SIXTHS] for seed in found.SEEDS]

    def trained(seed: int, sixth: int) -> float:
        drawn = random.choice(inside[sixth], ran["default"][seed, sixth].scored, replace=False)
        return float(drawn.max())

    by_score = {label: over(lambda *at, by=by: accuracy[by[at].row]) for label, by in ran.items()}
    return {
        **by_score,
        "a random pick": over(lambda _, sixth: inside[sixth].mean()),
        "as many at random, all trained": over(trained),
    }
