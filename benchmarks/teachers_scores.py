"""The scores of the students of `teachers_table.py` against each teacher, fresh and trained.

    python benchmarks/teachers_scores.py --data CIFAR100 --weights FOLDER

Each score is the mean over three batches of 64 training images and three draws of the weights. A
teacher has random weights, as the published score does, or those that `teachers_table.py` trained.
Adds the lines that are missing to docs/tables/teachers_scores.csv.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from short_training import append, few, images_in, lines, machine, of_classes
from teachers_space import TABLES, TEACHERS, student, students
from teachers_table import IMAGES, TWENTY
from torch import nn

from diswot.data.dataset import Batch
from diswot.models.initialization import fresh
from diswot.models.weights import load_weights
from diswot.proxies.registry import PROXIES, by_init
from diswot.proxies.scorer import NotScored, scorer

SCORED = TABLES / "teachers_scores.csv"
REPEATS, BATCH = 3, 64
FRESH, TRAINED = "fresh", "trained"
SIZES = ("params", "macs", "depth", "size")
DISTANCES = ("semantic", "relation", "semantic_class", "gradcam", "kd_standardised", "at", "sp",
             "cka", "ickd", "rkd", "pkt")  # fmt: skip
SCORES = ("default", "detail", "diswot", *DISTANCES, "capacity", "effective_rank", "directness",
          "naswot", "synflow", *SIZES)  # fmt: skip
COMPARING = [name for name in SCORES if PROXIES[name].needs_teacher]


def score_students(teacher: nn.Module, batches: list[Batch], weights: str) -> dict[str, Any]:
    """Return the line of each student by its name."""
    groups = by_init(SCORES)
    ready = [
        (names, scorer(teacher, batches, names, init=init, trained_teacher=weights == TRAINED))
        for init, names in groups.items()
    ]
    found: dict[str, Any] = {}
    for name, row in students().items():
        values: dict[str, str] = {}
        for names, fixed in ready:
            build = partial(student, row, 20)
            outcomes = fixed.outcomes(fixed.students(build), names)
            values |= {each: _mean(outcomes[each]) for each in names}
        found[name] = {each: values[each] for each in SCORES}
    return found


def _mean(outcomes: list[Any]) -> str:
    if any(isinstance(each, NotScored) for each in outcomes):
        return ""
    return f"{fmean(outcomes):.8g}"


def make(options: argparse.Namespace) -> None:
    """Add the lines of the teachers and weights that are missing."""
    every = of_classes(images_in(options.data), TWENTY)
    data = replace(every, train=few(every.train, IMAGES))
    batches = [data.batch(BATCH, 0, repeat) for repeat in range(REPEATS)]
    facts = {name: machine()[name] for name in ("torch", "processor")}  # diswot is a score here
    done = {(row["teacher"], row["weights"]) for row in lines(options.out)}
    for weights in (FRESH, TRAINED):
        for name, build in TEACHERS.items():
            path = options.weights / f"{name}.safetensors"
            if (name, weights) in done or (weights == TRAINED and not path.exists()):
                continue
            teacher = fresh(partial(build, len(data.classes)), "default", 0).eval()
            if weights == TRAINED:
                load_weights(teacher, path)
            for each, values in score_students(teacher, batches, weights).items():
                row = {"student": each, "teacher": name, "weights": weights}
                append(options.out, {**row, **values, **facts})
            print(name, weights, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-100 as a folder of images")
    parser.add_argument("--weights", type=Path, required=True, help="folder of the teachers")
    parser.add_argument("--out", type=Path, default=SCORED)
    make(parser.parse_args())


if __name__ == "__main__":
    main()
