"""What `diswot.search` finds, by the accuracies of tables: for `default.py`.

    python benchmarks/found.py --tables DIR

Searches a table's architectures with each score, within each budget, with five seeds, and keeps
what each search returned in runs/found; a search that is kept is not run again.

S0 is searched by `diswot.search`. In NAS-Bench-201, where searches meet the same cells, a cell is
scored once for a seed, with all budgets and samplers, and its score is kept too: the searches run
the loop of `diswot.search` on these. The first of each score is run by `diswot.search` as well, as
far as `CHECKED` candidates, to see that both find the same.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property, partial
from pathlib import Path
from statistics import fmean

import numpy as np
import optuna
from optuna.samplers import RandomSampler
from optuna.trial import BaseTrial
from study import unpacked
from torch import nn

import diswot
from diswot.costs.budget import Excess
from diswot.costs.counts import count_params
from diswot.errors import UserError
from diswot.executors.inline import Inline
from diswot.nas.driver import Driver
from diswot.nas.evaluator import Task
from diswot.nas.proposal import Proposer
from diswot.nas.samplers import SAMPLERS
from diswot.nas.trial_result import RAISED, TrialResult
from diswot.proxies.registry import get_proxy
from diswot.proxies.scorer import NotScored, Scorer, scorer
from diswot.ranking.tables.read import read_table
from diswot.spaces import nasbench201
from diswot.spaces.registry import Params, build_network, create_space
from diswot.storage.study import open_storage, open_study

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
    "nasbench201": Field("nasbench201.csv.gz", "nasbench201", 64, 600),
}
CHECKED = 12


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
        self.rows = read_table(folder / self.field.file, self.field.space).rows
        self.build = create_space(self.field.space, num_classes=100)
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
            self.counts[kind] = count_params(build_network(self.build, params))
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

    def has(self, params: Params) -> bool:
        """Whether an architecture is in the table."""
        return frozenset(params.items()) in self.names

    def name(self, params: Params) -> str:
        """The row of a found student."""
        return self.names[frozenset(params.items())]


def search(
    ground: Ground,
    given: Search,
    data: diswot.data.dataset.Data,
    storage: Path | None = None,
    trials: int | None = None,
) -> Search:
    """Run it."""
    limit = ground.limit(given.sixth)
    found = diswot.search(
        teacher(),
        ground.space(limit),
        data.batch(ground.field.batch_size, given.seed),
        n_trials=trials or ground.field.trials,
        budget=diswot.Budget(max_params=None if given.sixth == SIXTHS[-1] else limit),
        sampler=given.sampler,
        scoring=diswot.Scoring(given.score, seed=given.seed),
        study=diswot.StudySettings(storage),
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


@dataclass(frozen=True)
class Known:
    """Evaluates candidates by scores that are kept.

    Attributes:
        ground: The table.
        limit: Of parameters.
        score: Of an architecture.
    """

    ground: Ground
    limit: float
    score: Callable[[Params], float]

    def __call__(self, task: Task) -> TrialResult:
        params, _ = task
        size = self.ground.count(params)
        margins = {} if self.limit == math.inf else {"params": size / self.limit - 1}
        if size > self.limit:
            excess = Excess("parameters", size, self.limit)
            return TrialResult(rejected=excess, margins=margins)
        try:
            score = self.score(params) if self.ground.has(params) else math.nan
        except NotScored:
            score = math.nan
        if math.isnan(score):
            return TrialResult(failed="not in the table, or not scored", kind=RAISED)
        return TrialResult(score, {"": [score]}, size, margins=margins)


@dataclass
class Memory:
    """Scores of cells, each found once and kept in a file.

    Attributes:
        path: A line a score.
        held: By score, seed and row.
    """

    path: Path
    held: dict[tuple[str, int, str], float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        self.held |= {tuple(name): value for *name, value in map(json.loads, lines)}

    def of(self, name: tuple[str, int, str], find: Callable[[], float]) -> float:
        if name not in self.held:
            self.held[name] = find()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as file:
                file.write(json.dumps([*name, self.held[name]]) + "\n")
        return self.held[name]


def recalled(
    ground: Ground, given: Search, fixed: Scorer, memory: Memory, trials: int | None = None
) -> Search:
    """What `search` finds, by scores that are kept."""

    def score(params: Params) -> float:
        def find() -> float:
            build = partial(build_network, ground.build, params)
            return fmean(fixed.score(fixed.students(build), [given.score])[given.score])

        return memory.of((given.score, given.seed, ground.name(params)), find)

    limit = math.inf if given.sixth == SIXTHS[-1] else ground.limit(given.sixth)
    study = optuna.create_study(sampler=SAMPLERS[given.sampler](given.seed), direction="maximize")
    known = Known(ground, limit, score)
    driver = Driver(study, Proposer(ground.build), Inline(known))
    driver.sample(trials or ground.field.trials, lambda progress: None)
    scored = list(driver.history.scored(()))
    best = driver.history.entry(min(scored).trial)
    return replace(given, row=ground.name(best.params), scored=len(scored))


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
    ground, data = Ground(name, folder), diswot.create_dataset(str(images), img_size=32)
    done = {key(each) for each in kept(name)}
    left = [each for each in wanted(name) if key(each) not in done]
    for each in left:
        if not exhaustive(name):
            note(name, [by_memory(ground, each, images)])
        elif each.sixth == SIXTHS[-1]:
            note(name, whole(ground, each, data))


def whole(ground: Ground, each: Search, data: diswot.data.dataset.Data) -> list[Search]:
    """A search that looks at all of a table, and with it those within budgets."""
    with tempfile.TemporaryDirectory() as place:
        found = [search(ground, each, data, Path(place))]
        found += within(ground, found[0], Path(place))
    if each.seed == 0:
        middle = next(one for one in found if one.sixth == 3)
        assert search(ground, middle, data) == middle
    return found


@cache
def seeded(images: Path, batch_size: int, seed: int, init: str) -> Scorer:
    """What scores candidates, as in `diswot.search`."""
    batch = diswot.create_dataset(str(images), img_size=32).batch(batch_size, seed)
    return scorer(teacher(), [batch], init=init, seed=seed)


def by_memory(ground: Ground, each: Search, images: Path) -> Search:
    """A search by scores that are kept."""
    fixed = seeded(images, ground.field.batch_size, each.seed, get_proxy(each.score).init)
    memory = Memory(OUT / f"{ground.field.space}-scores.jsonl")
    if each.seed == 0 and each.sixth == 3:
        data = diswot.create_dataset(str(images), img_size=32)
        assert search(ground, each, data, trials=CHECKED) == recalled(
            ground, each, fixed, memory, CHECKED
        )
    return recalled(ground, each, fixed, memory)


def teacher() -> nn.Module:
    return diswot.create_teacher("resnet110", num_classes=100)


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
    for name, each in FIELDS.items():
        if name.startswith(given.only) and (given.tables / each.file).is_file():
            run(name, given.tables, images)
            print(f"{name}: {len(kept(name))} searches", flush=True)


if __name__ == "__main__":
    main()
