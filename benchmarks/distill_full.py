"""The whole method at full length, for a card: `python benchmarks/distill_full.py --help`.

A teacher is trained on CIFAR-100; the space S0 is searched for its student; that student and
ResNet-20 are distilled by the CIFAR recipe; and then as many of S0's students as time allows, in a
random order, by the same recipe shortened, whose accuracies are correlated with the published
ones. Each training resumes where it was stopped, and `figures.json` is written after each,
with the card and the versions: run it again until it is through.

Published, for ResNet-56 and ResNet-20 with this recipe (CRD, Tian et al., ICLR 2020, table 1):
teacher 72.34 %, ResNet-20 alone 69.06 %, distilled (kd) 70.66 %.
"""

from __future__ import annotations

import argparse
import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pages import plain_tau
from torch import nn

from diswot.costs.budget import Budget
from diswot.costs.counts import count_macs, count_params
from diswot.data.dataset import Dataset
from diswot.data.registry import create_dataset
from diswot.models.initialization import fresh
from diswot.models.registry import teacher_builder
from diswot.nas.api import search
from diswot.nas.evaluator import Scoring
from diswot.ranking.tables.read import read_table
from diswot.spaces.registry import Params, build_network, create_space
from diswot.training.checkpoint import WEIGHTS
from diswot.training.distill import distill
from diswot.training.recipe import Recipe
from diswot.training.recipe_files import load_recipe
from diswot.utils import files
from diswot.utils.environment import hardware, versions

HAND: Params = {"blocks1": 3, "blocks2": 3, "blocks3": 3}
PUBLISHED = {"teacher": 72.34, "resnet20 alone": 69.06, "resnet20 distilled": 70.66}
ORDER_SEED = 0


class Study:
    """The trainings so far; everything is kept in a folder."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.out = options, Path(options.out)
        self.end = time.monotonic() + 60 * options.minutes
        self.images: Dataset = create_dataset(
            options.data, img_size=options.image_size, root=options.data_root
        )
        self.space = create_space("s0", len(self.images.classes))
        changes: dict[str, Any] = {"epochs": options.epochs} if options.epochs else {}
        changes |= {"batch_size": options.batch_size} if options.batch_size else {}
        self.recipe = load_recipe(options.recipe, **changes)
        self.short = load_recipe(options.recipe, **{**changes, "epochs": options.short_epochs})
        self.figures: dict[str, Any] = {
            "hardware": hardware(), "versions": versions(), "published": PUBLISHED,
            "recipe": self.recipe.as_dict(), "short": self.short.as_dict(), "trained": {},
        }  # fmt: skip

    def train(
        self, name: str, model: nn.Module, teacher: nn.Module | None, recipe: Recipe
    ) -> float:
        """Train, or resume a training, and keep its accuracy among the figures."""
        recipe = recipe if teacher is not None else replace(recipe, losses={})
        made = distill(teacher, model, self.images, recipe, out=self.out / name, resume=True)
        self.figures["trained"][name] = {
            "accuracy": made.test_accuracy,
            "seconds": made.seconds,
            "epochs": recipe.epochs,
            "params": count_params(model),
            "macs": count_macs(model, self.images.image_shape),
        }
        self.write()
        print(f"{name}: {made.test_accuracy:.2f} % in {made.seconds:.0f} s", flush=True)
        return made.test_accuracy

    def write(self) -> None:
        files.write_json(self.out / "figures.json", self.figures)

    def student(self, params: Params) -> nn.Module:
        return fresh(lambda: build_network(self.space, params), "default", self.recipe.seed)

    def found(self, teacher: nn.Module) -> Params:
        result = search(
            teacher, self.space, self.images.batch(64), n_trials=64,
            budget=Budget.like(self.student(HAND), self.images.image_shape),
            scoring=Scoring(trained_teacher=True),
        )  # fmt: skip
        self.figures["found"] = result.best.params
        return dict(result.best.params)

    def run(self) -> None:
        classes = len(self.images.classes)
        teacher = fresh(teacher_builder(self.options.teacher, classes), "default", 0)
        self.train("teacher", teacher, None, self.recipe)
        self.train("found", self.student(self.found(teacher)), teacher, self.recipe)
        self.train("resnet20", self.student(HAND), teacher, self.recipe)
        self.train("resnet20-alone", self.student(HAND), None, self.recipe)
        self.correlate(teacher)

    def correlate(self, teacher: nn.Module) -> None:
        """Students of the table by the shortened recipe, until the time is over."""
        rows = list(read_table(self.options.table, "s0").rows)
        random.Random(ORDER_SEED).shuffle(rows)
        ours: list[float] = []
        published: list[float] = []
        sizes: list[float] = []
        for row in rows[: self.options.students]:
            name = "s0-" + "-".join(str(value) for value in row.params.values())
            if time.monotonic() > self.end and not (self.out / name / WEIGHTS).exists():
                break
            model = self.student(dict(row.params))
            ours.append(self.train(name, model, teacher, self.short))
            sizes.append(float(count_params(model)))
            published.append(row.accuracies["distilled_acc"])
            arrays = [np.array(values) for values in (ours, published, sizes)]
            if len(ours) > 2:
                self.figures["rank"] = {
                    "n": len(ours),
                    "kendall": plain_tau(arrays[0], arrays[1]),
                    "kendall of params": plain_tau(arrays[2], arrays[1]),
                }
                self.write()


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="cifar100", help="as diswot's --data")
    parser.add_argument("--data-root")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--teacher", default="resnet56", help="or resnet110")
    parser.add_argument("--recipe", default="cifar")
    parser.add_argument("--epochs", type=int, help="else the recipe's")
    parser.add_argument("--batch-size", type=int, help="else the recipe's")
    parser.add_argument("--short-epochs", type=int, default=30, help="of each student of S0")
    parser.add_argument("--students", type=int, default=64, help="of S0, at most")
    parser.add_argument("--minutes", type=float, default=1e6, help="no student is begun after them")
    parser.add_argument("--table", required=True, help="CSV of S0 with distilled_acc")
    parser.add_argument("--out", default="runs/distill-full")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    Study(parsed()).run()
