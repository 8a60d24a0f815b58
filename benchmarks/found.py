"""What `diswot.search` finds, by the accuracies of tables: for `default.py`.

    python benchmarks/found.py --tables DIR

Searches a table's architectures with each score, within each budget, with five seeds, and keeps
what each search returned in runs/found; a search that is kept is not run again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import optuna
from optuna.samplers import RandomSampler
from optuna.trial import BaseTrial
from study import unpacked
from torch import nn

import diswot
from diswot import spaces, tables
from diswot.budget import count_params
from diswot.errors import UserError
from diswot.spaces import Params, nasbench201
from diswot.storage import open_storage, open_study

OUT = Path("runs/found")
SEEDS = range(5)
SIXTHS = (1, 2, 3, 4, 5, 6)  # of the table's parameter counts, in order: budgets; the last is none
SCORES = ("default", "diswot", "params", "macs", "depth")
WAYS = (*((score, "evolution") for score in SCORES), ("default", "random"))


@dataclass(frozen=True)
class Field:
    """A table to search in.

    Attributes:
        file: Name.
        space: Of the table.
        batch_size: Images.
        trials: Candidates within the budget that a search looks at; those that the table does not
            have are among them.
    """

    file: str
    space: str
    batch_size: int
    trials: int


FIELDS = {
    "s0": Field("s0_cifar100.csv", "s0", 64, 64),
    "nasbench201": Field("nasbench201.csv.gz", "nasbench201", 64, 150),
}


@dataclass(frozen=True)
class Search:
    """One search and what it returned.

    Attributes:
        score: What it went by.
        seed: Of images, weights and proposals.
        sixth: Its budget.
        sampler: Evolution or random.
        row: The student's name in the table.
        scored: Candidates that were scored.
    """

    score: str
    seed: int
    sixth: int
    sampler: str
    row: str
    scored: int


class Ground:
    """A table's architectures as a space, and their accuracies."""

    def __init__(self, name: str, folder: Path) -> None:
        self.field = FIELDS[name]
        self.rows = tables.read(folder / self.field.file, self.field.space).rows
        self.build = spaces.get(self.field.space, classes=100)
        self.names = {frozenset(row.params.items()): row.name for row in self.rows}
        self.cells = name == "nasbench201"
        self.counts: dict[object, int] = {}

    @cached_property
    def params(self) -> np.ndarray:
        """Parameter count of each row."""
        return np.array([self.count(row.params) for row in self.rows])

    def limit(self, sixth: int) -> float:
        """The parameters that a budget allows."""
        return float(np.quantile(self.params, sixth / 6))

    def count(self, params: Params) -> int:
        """Parameter count of an architecture; that of a cell depends on its operations alone."""
        kind = tuple(sorted(params.values())) if self.cells else frozenset(params.items())
        if kind not in self.counts:
            self.counts[kind] = count_params(spaces.network(self.build, params))
        return self.counts[kind]

    def space(self, limit: float) -> Callable[[BaseTrial], nn.Module]:
        """Exactly the table's architectures, as far as they are within the budget.

        S0's table is all of S0. That of NAS-Bench-201 holds a third of the space: a cell within the
        budget that is not in it fails.
        """
        return partial(self._inside, limit) if self.cells else self.build

    def _inside(self, limit: float, trial: BaseTrial) -> nn.Module:
        edges = self.rows[0].params
        params = {edge: trial.suggest_categorical(edge, nasbench201.OPERATIONS) for edge in edges}
        if frozenset(params.items()) not in self.names and self.count(params) <= limit:
            raise UserError("not in the table")
        return self.build(trial)

    def name(self, params: Params) -> str:
        """The row of a found student."""
        return self.names[frozenset(params.items())]


def search(ground: Ground, given: Search, data: diswot.data.Data, storage: Path | None) -> Search:
    """Run it."""
    limit = ground.limit(given.sixth)
    found = diswot.search(
        diswot.teachers.get("resnet110", classes=100),
        ground.space(limit),
        data.batch(ground.field.batch_size, given.seed),
        trials=ground.field.trials,
        proxy=given.score,
        budget=diswot.Budget(max_params=None if given.sixth == SIXTHS[-1] else limit),
        sampler=given.sampler,
        seed=given.seed,
        storage=storage,
    )
    row = ground.name(found.best.params)
    return Search(given.score, given.seed, given.sixth, given.sampler, row, found.scored)


def within(ground: Ground, whole: Search, storage: Path) -> Iterator[Search]:
    """What searches within smaller budgets return, from one that looked at every architecture.

    A candidate's score depends on nothing but the seed, so theirs are the same to the last bit;
    `main` runs one of them to see that they find the same.
    """
    study = open_study(open_storage(storage), "diswot", RandomSampler(), resume=True)
    trials = [t for t in study.get_trials(deepcopy=False) if "scores" in t.user_attrs["end"]]
    for sixth in SIXTHS[:-1]:
        fit = [t for t in trials if t.user_attrs["end"]["model_params"] <= ground.limit(sixth)]
        best = min(fit, key=lambda t: (-t.value, t.user_attrs["end"]["model_params"], t.number))
        row = ground.name(best.params)
        yield Search(whole.score, whole.seed, sixth, whole.sampler, row, len(fit))


def kept(name: str) -> list[Search]:
    """All searches that were run in a table."""
    path = OUT / f"{name}.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [Search(**json.loads(line)) for line in lines]


def wanted(name: str) -> Iterator[Search]:
    """All searches of a table, the most wanted first."""
    for score, sampler in WAYS:
        for seed in SEEDS:
            for sixth in SIXTHS:
                if sampler == "evolution" or not exhaustive(name):
                    yield Search(score, seed, sixth, sampler, "", 0)


def finished(name: str) -> bool:
    """Whether all searches of a table are kept."""
    return {key(each) for each in wanted(name)} <= {key(each) for each in kept(name)}


def exhaustive(name: str) -> bool:
    """Whether every architecture of the table is looked at."""
    return name != "nasbench201"


def run(name: str, folder: Path, images: Path) -> None:
    """Run the searches that are not kept."""
    ground, data = Ground(name, folder), diswot.data.get(str(images), size=32)
    done = {key(each) for each in kept(name)}
    for each in wanted(name):
        if key(each) in done or (exhaustive(name) and each.sixth != SIXTHS[-1]):
            continue
        with tempfile.TemporaryDirectory() as place:
            storage = Path(place) if exhaustive(name) else None
            found = [search(ground, each, data, storage)]
            found += within(ground, found[0], storage) if storage else []
        if storage and each.seed == 0:
            middle = next(one for one in found if one.sixth == 3)
            assert search(ground, middle, data, None) == middle
        note(name, found)


def note(name: str, found: list[Search]) -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    with (OUT / f"{name}.jsonl").open("a") as file:
        file.writelines(json.dumps(asdict(each)) + "\n" for each in found)


def key(each: Search) -> tuple[object, ...]:
    return each.score, each.seed, each.sixth, each.sampler


def accuracies(ground: Ground, target: str) -> Mapping[str, float]:
    return {row.name: row.accuracies[target] for row in ground.rows}


def main() -> None:
    """Run the searches of every table that is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=Path, required=True)
    parser.add_argument("--only", default="", help="tables whose name begins with this")
    given = parser.parse_args()
    if not (given.tables / "cifar100.zip").is_file():
        sys.exit(f"skipped: {given.tables} holds no cifar100.zip, or is not there")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    images = unpacked(given.tables)
    for name, field in FIELDS.items():
        if name.startswith(given.only) and (given.tables / field.file).is_file():
            run(name, given.tables, images)
            print(f"{name}: {len(kept(name))} searches", flush=True)


if __name__ == "__main__":
    main()
