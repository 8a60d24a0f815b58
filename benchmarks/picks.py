"""What a search picks under a tight budget, beside what a user would pick: trained alike.

    python benchmarks/picks.py --data CIFAR100 --teacher-weights FILE

In each space the budget is the parameters and MACs of a plain design by hand. Under it are picked:
the winner of a search by each score, the largest by parameters, and random students of at least
80 % of one of the two costs. `verified` is the most accurate of the best four different ones by the
default score, after at most three epochs, on held-out training images (`search --verify 4`). All
are distilled alike on ten classes of CIFAR-100, from fresh weights. Each finished training is one
line of a CSV file; what is there is not repeated.
`--part 0/2` and `--part 1/2` share the trainings of two processes.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import torch
from pages import markdown, spread
from short_training import (
    KeptLogits,
    append,
    few,
    images_in,
    lines,
    measure_result,
    of_classes,
    trained_teacher,
)
from torch import nn

from diswot.costs.budget import Budget
from diswot.costs.counts import count_depth, count_macs, count_params
from diswot.data.dataset import Dataset
from diswot.models.initialization import fresh
from diswot.nas.api import search
from diswot.nas.evaluator import Scoring
from diswot.nas.proposal import Proposer
from diswot.spaces.registry import Params, build_network, create_space
from diswot.training.distill import distill
from diswot.training.recipe import Recipe
from diswot.training.verify import verify
from diswot.utils.environment import hardware

CLASSES = range(0, 100, 10)  # of the hundred, by name
SIZE, CANDIDATES, RANDOM = 32, 500, 3
SHAPE = (3, SIZE, SIZE)
VERIFIED, VERIFIED_STUDENTS, VERIFIED_EPOCHS = "verified", 4, 3
TABLE = Path("docs/tables/picks.csv")
USER = "benchmarks/user_spaces.py"


def staged(ends: Sequence[str], **choices: Any) -> dict[str, Any]:
    """Return parameters of stages, whose names end so: one value for all, or one for each."""
    return {
        name + end: value[place] if isinstance(value, tuple) else value
        for name, value in choices.items()
        for place, end in enumerate(ends)
    }


three = partial(staged, "012")
six = partial(staged, [f"_{stage}" for stage in range(1, 7)])


@dataclass(frozen=True)
class Cell:
    """A space, and the plain design whose cost is the budget."""

    space: str
    by_hand: Params
    optimizer: str = "sgd"
    lr: float = 0.1
    epochs: int = 8

    def recipe(self, seed: int) -> Recipe:
        """Return the settings of a training."""
        return Recipe(
            epochs=self.epochs, batch_size=50, optimizer=self.optimizer, lr=self.lr,
            schedule="onecycle", weight_decay=5e-4 if self.optimizer == "sgd" else 0.05,
            cross_entropy=0.1, losses={"kd_standardised": 9.0}, seed=seed,
        )  # fmt: skip


CELLS: Mapping[str, Cell] = {
    "depthwise": Cell(
        f"{USER}:depthwise", {"act": "relu", **three(width=(32, 48, 64), kernel=3, depth=2)}
    ),
    "depthwise_deep": Cell(
        f"{USER}:depthwise", {"act": "relu", **three(width=(32, 48, 64), kernel=3, depth=3)}
    ),
    "plain": Cell(f"{USER}:plain", three(width=(16, 32, 64), kernel=3, depth=2)),
    "attentive": Cell(
        f"{USER}:attentive", three(width=(32, 64, 128), ratio=4, kernel=3, attends=True, depth=2)
    ),
    # ResNet-20 of half the width
    "cifar_resnet": Cell(
        "cifar_resnet",
        {**{f"blocks{i}": 3 for i in (1, 2, 3)}, "width1": 8, "width2": 16, "width3": 32},
    ),
    # MobileNetV2 x 0.35
    "mobilenet": Cell(
        "mobilenet",
        {"width": 0.35, **six(depth=(2, 3, 4, 3, 3, 1), kernel=3, expand=6, se=False)},
    ),
    "vit": Cell("vit", {"depth": 6, "heads": 2, "head_width": 32, "mlp_ratio": 4.0}, "adamw", 1e-3),
}


@dataclass(frozen=True)
class Run:
    """One training."""

    cell: str
    pick: str
    seed: int


def runs(cells: list[str], scores: list[str], seeds: int) -> Iterator[Run]:
    """Yield all trainings, seed by seed, so that a study that is stopped has each of them once."""
    for seed in range(seeds):
        for cell in cells:
            yield Run(cell, "by hand", seed)
            for score in scores:
                yield Run(cell, score, seed)
            if seed == 0:
                for number in range(RANDOM):
                    yield Run(cell, f"random {number}", 0)


class Picker:
    """What is picked in a space; each search runs once, and its result is kept in a file."""

    def __init__(self, path: Path, teacher: nn.Module, images: Dataset) -> None:
        self.path, self.teacher, self.images = path, teacher, images
        self.known: dict[str, Params] = json.loads(path.read_text()) if path.exists() else {}

    def __call__(self, run: Run) -> Params:
        cell = CELLS[run.cell]
        if run.pick == "by hand":
            return cell.by_hand
        key = f"{run.cell} {run.pick}"
        if key not in self.known:
            self.known[key] = self._pick(cell, run.pick)
            self.path.write_text(json.dumps(self.known, indent=1))
        return self.known[key]

    def _pick(self, cell: Cell, pick: str) -> Params:
        space = create_space(cell.space, len(CLASSES), SIZE)
        params, macs = costs(build_network(space, cell.by_hand))
        if pick.startswith("random"):
            return random_student(cell, params, macs, int(pick.split()[1]))
        score = "default" if pick == VERIFIED else pick
        found = search(
            self.teacher, space, self.images.batch(64), n_trials=CANDIDATES, scoring=Scoring(score),
            budget=Budget(max_params=params, max_macs=macs),
        )  # fmt: skip
        if pick != VERIFIED:
            return found.best.params
        short = replace(cell.recipe(0), epochs=VERIFIED_EPOCHS)
        tried = verify(found.diverse[:VERIFIED_STUDENTS], self.teacher, space, self.images, short)
        print(tried, flush=True)
        assert tried.best.student is not None
        return tried.best.student.params


def costs(model: nn.Module) -> tuple[int, int]:
    return count_params(model), count_macs(model, SHAPE)


def random_student(cell: Cell, params: int, macs: int, number: int) -> Params:
    """Draw students until one is within the budget, with at least 80 % of one of the two costs."""
    space = create_space(cell.space, len(CLASSES), SIZE)
    propose = Proposer(space)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=number))
    while True:
        trial = study.ask()
        if propose(trial) > params:
            continue
        found = costs(build_network(space, trial.params))
        shares = (found[0] / params, found[1] / macs)
        if max(shares) <= 1 and max(shares) >= 0.8:
            return trial.params


def train(run: Run, teacher: KeptLogits, images: Dataset, choices: Params) -> dict[str, Any]:
    """Train once; return a line of the table, with seconds that leave out the teacher's."""
    cell = CELLS[run.cell]
    space = create_space(cell.space, len(CLASSES), SIZE)
    start, teacher.seconds = time.process_time(), 0.0
    model = fresh(lambda: build_network(space, choices), "default", run.seed)
    params, macs = costs(model)
    distill(teacher, model, replace(images, test=few(images.test, 1)), cell.recipe(run.seed))
    teacher.write()
    seconds = time.process_time() - start - teacher.seconds
    return {
        **vars(run), "accuracy": f"{measure_result(model, images):.2f}", "params": params,
        "macs": macs, "depth": count_depth(model), "epochs": cell.epochs,
        "architecture": json.dumps(choices), "seconds": f"{seconds:.0f}",
        "torch": torch.__version__, "processor": hardware()["processor"],
    }  # fmt: skip


def table(rows: list[dict[str, str]]) -> str:
    """Return the accuracies as a table: a row per space, a column per pick."""
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        pick = "random" if row["pick"].startswith("random") else row["pick"]
        values = found.setdefault(row["cell"], {}).setdefault(pick, [])
        values.append(float(row["accuracy"]))
    picks = list(dict.fromkeys(pick for cell in found.values() for pick in cell))
    body = [
        [cell, *(f"{spread(of[pick])} ({len(of[pick])})" if pick in of else "-" for pick in picks)]
        for cell, of in found.items()
    ]
    return markdown(["space", *picks], body)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="CIFAR-100 as a folder of images")
    parser.add_argument("--teacher-weights", type=Path)
    parser.add_argument("--show", action="store_true", help="print the table of what is there")
    parser.add_argument("--out", type=Path, default=TABLE)
    parser.add_argument("--picked", type=Path, default=Path("docs/tables/picked.json"))
    parser.add_argument(
        "--logits",
        type=Path,
        default=Path("runs/picks_logits.safetensors"),
        help="file of the teacher's logits, which all trainings of a seed share",
    )
    parser.add_argument("--part", default="0/1", help="which of how many processes this one is")
    parser.add_argument("--scores", default="default,params", help="with commas")
    parser.add_argument("--cells", default=",".join(CELLS), help="with commas")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--search-only", action="store_true", help="pick, and train nothing")
    options = parser.parse_args()
    if options.show:
        print(table(lines(options.out)))
        return
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    images = of_classes(images_in(options.data), CLASSES)
    teacher = trained_teacher(options.teacher_weights, CLASSES)
    pick = Picker(options.picked, teacher, images)
    kept = KeptLogits(teacher, options.logits)
    wanted = runs(options.cells.split(","), options.scores.split(","), options.seeds)
    number, count = map(int, options.part.split("/"))
    for run in list(wanted)[number::count]:
        done = {(row["cell"], row["pick"], int(row["seed"])) for row in lines(options.out)}
        choices = pick(run)
        if options.search_only or (run.cell, run.pick, run.seed) in done:
            continue
        row = train(run, kept, images, choices)
        append(options.out, row)
        print(row, flush=True)


if __name__ == "__main__":
    main()
