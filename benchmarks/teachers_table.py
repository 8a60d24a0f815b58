"""A table of students under several teachers: does the best student depend on the teacher?

    python benchmarks/teachers_table.py --data CIFAR100 --weights FOLDER

24 students (`teachers_draw.py`) of S0, of the space for small images, and of NAS-Bench-201 with one
cell a stage. Each is trained on the labels alone, under each of three teachers by standardised
logits, and under one teacher by attention maps too. The teachers are trained here once, on the same
images: 20 classes of CIFAR-100, those of the cell `quarter` of `headline.py`, with 250 images each.

Every training adds a line to the table when it ends; what is there is not repeated. All students
see the same augmented images of a seed, so the logits of a teacher are computed once and kept
beside its weights. Seed 0 of all students comes first, and in it the labels and two teachers.
`teachers_scores.py` scores the students, and `teachers_page.py` writes the page of the analysis.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from headline import TWENTY
from short_training import (
    BATCH,
    KeptLogits,
    append,
    few,
    images_in,
    lines,
    machine,
    measure_result,
    of_classes,
)
from teachers_space import TEACHERS, student, students
from torch import nn

from diswot.data.dataset import Dataset
from diswot.models.initialization import fresh
from diswot.models.weights import load_weights
from diswot.training.distill import distill
from diswot.training.recipe import Recipe, parse_losses
from diswot.utils import state_dicts

IMAGES = 250  # training images of each class
EPOCHS, TEACHER_EPOCHS = 8, 20
NOBODY, LABELS, LOGITS, MAPS = "none", "labels", "kd_standardised", "at+kd_standardised"
# weight of the cross-entropy, and the losses with their weights
LOSSES: Mapping[str, tuple[float, str]] = {
    LABELS: (1.0, ""),
    LOGITS: (0.1, "kd_standardised:9"),
    MAPS: (0.1, "at:10,kd_standardised:9"),
}
MAPS_OF = "vgg"  # the teacher of which maps are shown: they cannot be kept, and it is cheap
COLUMNS = [(NOBODY, LABELS), *((name, LOGITS) for name in TEACHERS), (MAPS_OF, MAPS)]
FIRST = 3  # columns of all students that come before the others of the same seed
KEYS = ("student", "teacher", "loss", "seed", "epochs")


def recipe(loss: str, epochs: int, seed: int) -> Recipe:
    """Return the settings of a training."""
    weight, losses = LOSSES[loss]
    return Recipe(
        epochs=epochs, batch_size=BATCH, lr=0.1, schedule="onecycle", cross_entropy=weight,
        losses=parse_losses(losses) if losses else {}, seed=seed,
    )  # fmt: skip


@dataclass
class School:
    """Images, and teachers that are trained when they are first needed.

    Attributes:
        images: Training and test images.
        folder: Where the weights and logits of teachers are.
        epochs: Passes of a teacher over the images.
    """

    images: Dataset
    folder: Path
    epochs: int = TEACHER_EPOCHS
    teachers: dict[str, nn.Module] = field(default_factory=dict)
    accuracies: dict[str, str] = field(default_factory=dict)

    def teacher(self, name: str) -> nn.Module:
        """Return a trained teacher."""
        if name not in self.teachers:
            model = fresh(lambda: TEACHERS[name](len(self.images.classes)), "default", 0)
            path = self.folder / f"{name}.safetensors"
            if path.exists():
                load_weights(model, path)
            else:
                distill(None, model, self._few, recipe(LABELS, self.epochs, 0))
                state_dicts.save_weights(model, path)
            self.teachers[name] = model.eval()
            self.accuracies[name] = f"{measure_result(model, self.images):.2f}"
            print(f"{name}: {self.accuracies[name]} %", flush=True)
        return self.teachers[name]

    def train(self, row: Mapping[str, Any], key: Mapping[str, Any]) -> dict[str, Any]:
        """Train a student once; return the results of a line of the table."""
        plan = recipe(key["loss"], key["epochs"], key["seed"])
        model = fresh(lambda: student(row, len(self.images.classes)), "default", plan.seed)
        teacher = None if key["teacher"] == NOBODY else self.teacher(key["teacher"])
        kept = None
        if teacher is not None and plan.outputs_alone:
            kept = KeptLogits(
                teacher, self.folder / f"{key['teacher']}_logits{plan.seed}.safetensors"
            )
        start = time.process_time()
        distill(kept or teacher, model, self._few, plan)
        seconds = time.process_time() - start
        if kept is not None:
            seconds -= kept.seconds
            kept.write()
        return {
            "accuracy": f"{measure_result(model, self.images):.2f}",
            "teacher_test": self.accuracies.get(key["teacher"], ""),
            "seconds": f"{seconds:.0f}",
        }

    @property
    def _few(self) -> Dataset:
        """The images with one test image a class: only the last epoch is tested on all."""
        return replace(self.images, test=few(self.images.test, 1))


def trainings(options: argparse.Namespace) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield a student and the identity of each training, in their order."""
    rows = list(students().values())[: options.students]
    for seed in range(options.seeds):
        for columns in (COLUMNS[:FIRST], COLUMNS[FIRST:]):
            for row, (teacher, loss) in product(rows, columns):
                yield row, {"student": row["student"], "teacher": teacher, "loss": loss,
                            "seed": seed, "epochs": options.epochs}  # fmt: skip


def line(
    row: Mapping[str, Any], key: Mapping[str, Any], result: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a line of the table."""
    return {
        "student": row["student"], "space": row["space"], "architecture": json.dumps(row["params"]),
        "params": row["model_params"], "macs": row["macs"], "depth": row["depth"],
        **{name: key[name] for name in KEYS[1:]}, **result, **machine(),
    }  # fmt: skip


def make(options: argparse.Namespace) -> None:
    """Run the trainings whose lines are not there yet."""
    done = {tuple(row[name] for name in KEYS) for row in lines(options.out)}
    missing = [each for each in trainings(options) if identity(each[1]) not in done]
    if not missing:
        return
    every = images_in(options.data)
    some = of_classes(every, TWENTY)
    images = replace(
        some, train=few(some.train, options.images), test=few(some.test, options.tests)
    )
    options.weights.mkdir(parents=True, exist_ok=True)
    school = School(images, options.weights, options.teacher_epochs)
    for row, key in missing:
        made = line(row, key, school.train(row, key))
        append(options.out, made)
        print(made, flush=True)


def identity(key: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the identity of a training as the table has it."""
    return tuple(str(key[name]) for name in KEYS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-100 as a folder of images")
    parser.add_argument(
        "--weights", type=Path, required=True, help="folder of the teachers' weights and logits"
    )
    parser.add_argument("--out", type=Path, default=Path("docs/tables/teachers.csv"))
    parser.add_argument("--students", type=int, help="only the first of them")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--teacher-epochs", type=int, default=TEACHER_EPOCHS)
    parser.add_argument("--images", type=int, default=IMAGES, help="training images of each class")
    parser.add_argument("--tests", type=int, default=100, help="test images of each class")
    make(parser.parse_args())


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
