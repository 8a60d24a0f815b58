"""What a student gains if it starts from its teacher, by distiller, in short trainings on a CPU.

All classes of CIFAR-100 with 100 training images each, a trained ResNet-32, a student of three
blocks a stage, and 5 epochs. Each finished training is one line of a CSV file; a training whose
line is there is not repeated. `--part 0/2` and `--part 1/2` share the trainings of two processes.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pages import markdown, spread
from torch import nn

from diswot.data.dataset import Dataset, Split
from diswot.data.registry import create_dataset
from diswot.models.inheritance import inherit
from diswot.models.initialization import fresh
from diswot.models.registry import create_teacher
from diswot.models.weights import load_weights
from diswot.training.batches import augmented_batches
from diswot.training.distill import distill
from diswot.training.evaluation import measure_accuracy
from diswot.training.recipe import Recipe, parse_losses
from diswot.utils.environment import hardware, versions

FILE = "benchmarks/distill_teacher.py"
IMAGES, EPOCHS, BATCH, SEEDS = 100, 5, 100, 3  # images of each class
# Highest learning rate of each start: 0.1 undoes in one epoch what a student has inherited.
STARTS = {"fresh": 0.1, "teacher": 0.03}
# weight of the cross-entropy, and the losses with their weights
DISTILLERS: Mapping[str, tuple[float, str]] = {
    "alone": (1.0, ""),
    "kd": (0.1, "kd:0.9"),
    "kd_standardised": (0.1, "kd_standardised:9"),
    "at+kd_standardised": (0.1, "at:10,kd_standardised:9"),
    "at": (1.0, "at:10"),
    "sp": (1.0, "sp:3000"),
    "diswot_class": (1.0, "diswot_class"),
    "wttm": (1.0, "wttm:4"),
    "dkd": (1.0, "dkd:1"),
}


@dataclass(frozen=True)
class Run:
    """One training."""

    student: str
    start: str
    distiller: str
    seed: int


def runs(seeds: int) -> Iterator[Run]:
    """Yield all trainings, seed by seed, so that a study that is stopped has each of them once."""
    for seed in range(seeds):
        for distiller in DISTILLERS:
            for start in STARTS:
                yield Run("resnet20", start, distiller, seed)


def few(split: Split | None, count: int) -> Split:
    """Return the first images of each class."""
    assert split is not None
    labels = torch.as_tensor(split.labels)
    chosen = torch.cat([(labels == c).nonzero()[:count, 0] for c in labels.unique()])
    pixels = split.read(chosen.tolist())
    return Split(labels[chosen], lambda indices: pixels[torch.as_tensor(indices)])


def images_of(folder: Path) -> Dataset:
    """Return the images, normalised as the teacher was trained."""
    every = create_dataset(str(folder))
    every = replace(every, mean=(0.507, 0.487, 0.441), std=(0.267, 0.256, 0.276))
    return replace(every, train=few(every.train, IMAGES))


def train(run: Run, teacher: nn.Module, images: Dataset, lr: float | None) -> dict[str, Any]:
    """Train once; return a line of the table."""
    weight, losses = DISTILLERS[run.distiller]
    lr = lr or STARTS[run.start]
    recipe = Recipe(
        epochs=EPOCHS, batch_size=BATCH, lr=lr, schedule="onecycle", cross_entropy=weight,
        losses=parse_losses(losses) if losses else {}, seed=run.seed,
    )  # fmt: skip
    start = time.perf_counter()
    model = fresh(lambda: create_teacher(f"{FILE}:{run.student}", 100), "default", run.seed)
    share = 0.0
    if run.start == "teacher":
        share = inherit(teacher, model, augmented_batches(images, recipe)).share
    before = measure_accuracy(model, images)
    made = distill(teacher if losses else None, model, images, recipe)
    epochs = {f"epoch{row['epoch']}": f"{row['test_accuracy']:.2f}" for row in made.history}
    seconds = f"{time.perf_counter() - start:.0f}"
    facts = {"inherited": f"{share:.3f}", "lr": lr, "before": f"{before:.2f}"}
    return {**asdict(run), **facts, **epochs, "seconds": seconds, "torch": torch.__version__,
            "processor": hardware()["processor"], "diswot": versions()["diswot"]}  # fmt: skip


def done(path: Path) -> set[Run]:
    """Return the trainings whose lines are in the table."""
    if not path.exists():
        return set()
    with path.open(newline="") as file:
        return {
            Run(row["student"], row["start"], row["distiller"], int(row["seed"]))
            for row in csv.DictReader(file)
        }


def append(path: Path, row: Mapping[str, Any]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        table = csv.DictWriter(file, list(row), lineterminator="\n")
        if new:
            table.writeheader()
        table.writerow(row)


def table(path: Path) -> str:
    """Return the accuracies as a table: mean and standard deviation over the seeds."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    lines = []
    for distiller, (weight, losses) in DISTILLERS.items():
        cells = [distiller, f"{weight:g} x cross-entropy {losses}"]
        for start in STARTS:
            found = [row for row in rows if (row["start"], row["distiller"]) == (start, distiller)]
            last = [float(row[f"epoch{EPOCHS}"]) for row in found]
            cells += [spread(last) if last else "-", str(len(last))]
        lines.append(cells)
    columns = ["distiller", "loss"]
    columns += [text for start in STARTS for text in (f"start {start}, %", "seeds")]
    return markdown(columns, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="CIFAR-100 as a folder of images")
    parser.add_argument("--teacher-weights", type=Path)
    parser.add_argument("--show", action="store_true", help="print the table of what is there")
    parser.add_argument("--out", type=Path, default=Path("docs/tables/start.csv"))
    parser.add_argument("--part", default="0/1", help="which of how many processes this one is")
    parser.add_argument("--only", help="distillers, with commas")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--lr", type=float, help="highest learning rate, to choose it")
    options = parser.parse_args()
    if options.show:
        print(table(options.out))
        return
    images = images_of(options.data)
    teacher = create_teacher(f"{FILE}:resnet32", 100)
    load_weights(teacher, options.teacher_weights)
    number, count = map(int, options.part.split("/"))
    for run in list(runs(options.seeds))[number::count]:
        left_out = options.only and run.distiller not in options.only.split(",")
        if left_out or run in done(options.out):
            continue
        row = train(run, teacher.eval(), images, options.lr)
        append(options.out, row)
        print(row, flush=True)


if __name__ == "__main__":
    main()
