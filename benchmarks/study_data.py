"""The finished jobs of the study, and how each score ranks their tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from pages import plain_tau
from study import NB101, NB201, S0, SEED, TEACHERS, VIT, Job, scores, table_of

from diswot.cli.rank_scores import BASELINES, VANILLA
from diswot.ranking.rank import Ranking, rank
from diswot.ranking.score_columns import ScoreColumns, score_columns
from diswot.ranking.score_table import Scores, read_kept
from diswot.ranking.tables.read import vanilla_column
from diswot.ranking.tables.rows import AccuracyTable, ArchitectureRow

KINDS = ("noise", "images")
TARGETS = {
    S0[0]: ("distilled_acc", "vanilla_acc"),
    NB201[0]: ("cifar10_test", "cifar100_test", "imagenet16_120_test"),
    NB101[0]: ("cifar10_valid_108",),
    VIT[0]: ("c100_kd_acc", "flower_kd_acc", "chaoyang_kd_acc", "c100_base_acc"),
}
TITLES = {
    S0[0]: "S0: CIFAR ResNets, CIFAR-100",
    NB201[0]: "NAS-Bench-201",
    NB101[0]: "NAS-Bench-101, CIFAR-10",
    VIT[0]: "AutoFormer vision transformers",
}
FOLDERS = {S0[0]: "s0", NB201[0]: "nasbench201", NB101[0]: "nasbench101", VIT[0]: "autoformer"}
DEFAULT = Path("runs/default")


class Study:
    """The finished jobs, and the tables they are of."""

    def __init__(self, jobs: Sequence[Job], folder: Path) -> None:
        self.jobs = {job.name: job for job in jobs}
        self.tables: dict[str, AccuracyTable] = {}
        for job in jobs:
            if job.table not in self.tables and job.name.split("/")[1] == "shared":
                self.tables[job.table] = table_of(job, folder)
        self.kept = {name: scores(job) for name, job in self.jobs.items()}
        self.default = {name: default_scores(FOLDERS[name]) for name in self.tables}

    def of(self, table: str, kind: str) -> ScoreColumns:
        """All scores of a table on noise or on images."""
        folder, held = FOLDERS[table], self.tables[table]
        merged: dict[str, Scores] = {row.name: Scores() for row in held.rows}
        for part in ("slow", "costly", "shared"):
            job = self.jobs.get(f"{folder}/{part}/{kind}")
            for name, found in self.kept[job.name].items() if job else ():
                merged[name] = merged[name] | only(found, (*job.proxies, *BASELINES))
        for name in merged if kind == "images" else ():
            merged[name] = self.default[table].get(name, Scores()) | merged[name]
        proxies = dict.fromkeys(p for found in merged.values() for p in found.values)
        order = [name for name in proxies if name not in BASELINES]
        return score_columns(held, merged, [*order, *BASELINES])

    def taus(self, job: str, proxy: str, group: int = 1) -> list[float]:
        """Tau with the distilled accuracy of S0, of each `group` of repeats averaged."""
        held, found = self.tables[S0[0]], self.kept[job]
        accuracy = np.array([row.accuracies["distilled_acc"] for row in held.rows])
        values = np.array([found[row.name].values[proxy] for row in held.rows])
        count = values.shape[1] // group
        means = values[:, : count * group].reshape(len(values), count, group).mean(2)
        return [plain_tau(means[:, i], accuracy) for i in range(count)]


def default_scores(folder: str) -> dict[str, Scores]:
    """What `default.py` kept of a table, on images."""
    return read_kept(DEFAULT / folder / "scores.jsonl")


def only(found: Scores, proxies: Iterable[str]) -> Scores:
    """The scores of some proxies."""
    values = {name: found.values[name] for name in proxies if name in found.values}
    return Scores(values, found.reasons, found.seconds)


Rankings = dict[tuple[str, str, str], dict[str, Ranking]]


def ranked(held: ScoreColumns, target: str) -> dict[str, Ranking]:
    alone = vanilla_column(target, held.accuracies)
    columns = {**held.scores, **({VANILLA: held.accuracies[alone]} if alone else {})}
    random = np.random.default_rng(SEED)
    return rank(columns, held.accuracies[target], held.scores["params"], random=random)


def tau(rows: dict[str, Ranking], name: str, statistic: str = "kendall") -> float:
    return rows[name].statistics[statistic].value if name in rows else math.nan


def best(rows: dict[str, Ranking], names: Iterable[str], statistic: str = "kendall") -> str:
    known = [name for name in names if not math.isnan(tau(rows, name, statistic))]
    return max(known, key=lambda name: tau(rows, name, statistic))


def taught_by(teacher: str, kind: str) -> str:
    """The job of S0 scored with that teacher."""
    return f"s0/shared/{kind}" if teacher == TEACHERS[-1] else f"teacher/{teacher}/{kind}"


def shown(row: ArchitectureRow) -> str:
    return "-".join(str(value) for value in row.params.values())
