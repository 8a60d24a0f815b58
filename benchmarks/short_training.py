"""What the benchmarks of short trainings share: images, teacher, one training, tables of lines.

All classes of CIFAR-100 with 100 training images each, all 10,000 test images, and a trained
ResNet-32 of 71.70 %.
"""

from __future__ import annotations

import csv
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from diswot.data.dataset import Dataset, Split
from diswot.data.registry import create_dataset
from diswot.models.class_names import select_classes
from diswot.models.inheritance import inherit
from diswot.models.initialization import fresh
from diswot.models.registry import create_teacher
from diswot.models.resized import without_resizing
from diswot.models.weights import load_weights
from diswot.tasks.registry import task_of
from diswot.training.batches import augmented_batches
from diswot.training.distill import distill
from diswot.training.evaluation import count_all
from diswot.training.recipe import Recipe, parse_losses
from diswot.utils import files, state_dicts
from diswot.utils.environment import hardware, versions

FILE = "benchmarks/distill_teacher.py"
TEACHER = f"{FILE}:resnet32"
CLASSES, IMAGES, BATCH = 100, 100, 100  # images of each class; images of a batch
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
class Training:
    """How a student is trained.

    Attributes:
        distiller: A key of `DISTILLERS`.
        epochs: Passes over the training images.
        start: A key of `STARTS`.
        seed: Of the weights, the order and the augmentation.
        lr: Highest learning rate; None for that of the start.
    """

    distiller: str
    epochs: int
    start: str = "teacher"
    seed: int = 0
    lr: float | None = None

    @property
    def recipe(self) -> Recipe:
        weight, losses = DISTILLERS[self.distiller]
        return Recipe(
            epochs=self.epochs, batch_size=BATCH, lr=self.lr or STARTS[self.start],
            schedule="onecycle", cross_entropy=weight,
            losses=parse_losses(losses) if losses else {}, seed=self.seed,
        )  # fmt: skip


@dataclass(frozen=True)
class School:
    """A teacher and images, read when they are first needed.

    Attributes:
        data: CIFAR-100 as a folder of images.
        weights: Weights of the teacher.
    """

    data: Path
    weights: Path

    @cached_property
    def images(self) -> Dataset:
        """The images, normalised as the teacher was trained."""
        every = images_in(self.data)
        return replace(every, train=few(every.train, IMAGES))

    @cached_property
    def teacher(self) -> nn.Module:
        """The trained teacher."""
        return trained_teacher(self.weights)

    def train(self, build: Callable[[], nn.Module], training: Training) -> dict[str, Any]:
        """Train once; return the accuracies and facts of a line of a table."""
        return train_once(self.teacher, self.images, build, training)


class KeptLogits(nn.Module):
    """A teacher that answers a batch of images once; later calls return the kept logits.

    Args:
        teacher: The trained network.
        path: File of the logits by the digest of the images.
    """

    def __init__(self, teacher: nn.Module, path: Path) -> None:
        super().__init__()
        self.teacher, self.path = teacher, path
        self.kept = state_dicts.read_weights(path) if path.exists() else {}
        self.seconds = 0.0
        self.written = len(self.kept)

    def forward(self, images: Tensor) -> Tensor:
        """Map images B x 3 x S x S to logits B x K."""
        digest = hashlib.sha256(images.permute(0, 2, 3, 1).contiguous().numpy()).hexdigest()
        if digest not in self.kept:
            start = time.process_time()
            self.kept[digest] = self.teacher(images).float()
            self.seconds += time.process_time() - start
        return self.kept[digest]

    def write(self) -> None:
        """Write the logits that are new."""
        if len(self.kept) > self.written:
            files.write(self.path, lambda temporary: save_file(self.kept, temporary))
            self.written = len(self.kept)


def images_in(folder: Path, size: int = 32) -> Dataset:
    """Return a folder of images, normalised as the teacher was trained."""
    every = create_dataset(str(folder), img_size=size)
    return replace(every, mean=(0.507, 0.487, 0.441), std=(0.267, 0.256, 0.276))


def of_classes(data: Dataset, classes: Sequence[int]) -> Dataset:
    """Return the images of some classes, in memory."""
    names = tuple(data.classes[c] for c in classes)
    train, test = (_of_classes(split, classes) for split in (data.train, data.test))
    return replace(data, classes=names, train=train, test=test)


def _of_classes(split: Split | None, classes: Sequence[int]) -> Split:
    assert split is not None
    labels = torch.as_tensor(split.labels)
    chosen = torch.cat([(labels == c).nonzero()[:, 0] for c in classes])
    pixels = split.read(chosen.tolist())
    places = torch.full((int(labels.max()) + 1,), -1)
    places[list(classes)] = torch.arange(len(classes))
    return Split(places[labels[chosen]], lambda indices: pixels[torch.as_tensor(indices)])


def trained_teacher(weights: Path, classes: Sequence[int] | None = None) -> nn.Module:
    """Return the trained teacher; with `classes`, these of its hundred outputs are left."""
    teacher = create_teacher(TEACHER, CLASSES)
    load_weights(teacher, weights)
    if classes is not None:
        select_classes(teacher, classes, (3, 32, 32))
    return teacher.eval()


def train_once(
    teacher: nn.Module,
    images: Dataset,
    build: Callable[[], nn.Module],
    training: Training,
    weights: Path | None = None,
) -> dict[str, Any]:
    """Train a student once; return the accuracies and facts of a line of a table.

    Its weights are written to a file if one is named.
    """
    recipe = training.recipe
    start = time.perf_counter()
    model = fresh(build, "default", training.seed)
    share = 0.0
    if training.start == "teacher":
        share = inherit(without_resizing(teacher), model, augmented_batches(images, recipe)).share
    before = measure_result(model, images)
    few_tests = replace(images, test=few(images.test, 1))
    distill(teacher if recipe.losses else None, model, few_tests, recipe)
    if weights is not None:
        state_dicts.save_weights(model, weights)
    epochs = {f"epoch{epoch}": "" for epoch in range(1, recipe.epochs)}
    epochs[f"epoch{recipe.epochs}"] = f"{measure_result(model, images):.2f}"
    facts = {"inherited": f"{share:.3f}", "lr": recipe.lr, "before": f"{before:.2f}"}
    return {**facts, **epochs, "seconds": f"{time.perf_counter() - start:.0f}", **machine()}


def measure_result(model: nn.Module, data: Dataset) -> float:
    """Return the result on all test images, in %: accuracy, mean IoU, or mean average precision."""
    task = task_of(data)
    return task.results(count_all(model, data), len(data.classes)).means[task.result]


def few(split: Split | None, count: int) -> Split:
    """Return the first images of each class."""
    assert split is not None
    labels = torch.as_tensor(split.labels)
    chosen = torch.cat([(labels == c).nonzero()[:count, 0] for c in labels.unique()])
    pixels = split.read(chosen.tolist())
    return Split(labels[chosen], lambda indices: pixels[torch.as_tensor(indices)])


def machine() -> dict[str, str]:
    """Return what a line says of the machine."""
    return {"torch": torch.__version__, "processor": hardware()["processor"],
            "diswot": versions()["diswot"]}  # fmt: skip


def lines(path: Path) -> list[dict[str, str]]:
    """Return the lines of a table; none if it is not there."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def is_there(path: Path, key: Mapping[str, Any]) -> bool:
    """Whether a table has a line of these values."""
    return any(all(line[k] == str(v) for k, v in key.items()) for line in lines(path))


def append(path: Path, row: Mapping[str, Any]) -> None:
    """Add a line to a table, after the line of the names if the table is new."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        table = csv.DictWriter(file, list(row), lineterminator="\n")
        if new:
            table.writeheader()
        table.writerow(row)
