"""The table of tasks: what a row is, and how the predictions of the test images are measured.

Letters: B images, K classes, H x W pixels, h x w positions of the logits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from diswot.data.dataset import Dataset
from diswot.observation.rows import IGNORED, resized_logits
from diswot.utils.untrusted import number


@dataclass(frozen=True)
class Task:
    """A task and its facts.

    Attributes:
        summary: One line.
        row: What a row is: it has one target.
        result: Name of the test result in the history of a training.
        measure: Name of the measure in tables.
        count: Function of the logits and the targets of some test images: counts in float64, which
            are summed over all images and processes.
        percent: Function of the summed counts: the test result, in %.
    """

    summary: str
    row: str
    result: str
    measure: str
    count: Callable[[Tensor, Tensor], Tensor]
    percent: Callable[[Tensor], float]


def count_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the number of images whose label has the highest logit, and the number of images.

    Args:
        logits: B x K.
        labels: Class indices, B.
    """
    correct = (logits.argmax(1) == labels).sum()
    return torch.stack((correct, correct.new_tensor(len(labels)))).double()


def accuracy(counts: Tensor) -> float:
    """Return the share of the images that `count_correct` counts as correct, in %."""
    correct, images = map(float, counts)
    return 100 * correct / images


def confusion(logits: Tensor, targets: Tensor) -> Tensor:
    """Return how many pixels of each class are predicted to be of each class, K x K.

    Args:
        logits: B x K x h x w.
        targets: Class indices, B x H x W; `IGNORED` for a pixel that is not counted.
    """
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    height, width = targets.shape[1:]
    predicted = resized_logits(logits, (height, width)).argmax(1)
    counts = multiclass_confusion_matrix(
        predicted, targets, num_classes=logits.shape[1], ignore_index=IGNORED, validate_args=False
    )
    return counts.double()


def class_ious(counts: Tensor) -> Tensor:
    """Return the intersection over union of each class, in %; NaN for one that never occurs.

    Args:
        counts: K x K, as `confusion` returns them.
    """
    hits = counts.diagonal()
    return 100 * hits / (counts.sum(0) + counts.sum(1) - hits)


def mean_iou(counts: Tensor) -> float:
    """Return the mean over classes of `class_ious`, in %, without those that never occur."""
    return float(class_ious(counts).nanmean())


TASKS: dict[str, Task] = {
    "classification": Task(
        "one class an image",
        "an image",
        "test_accuracy",
        "test accuracy",
        count_correct,
        accuracy,
    ),
    "segmentation": Task(
        "one class a pixel: folders of images and masks",
        "a pixel that is not ignored",
        "test_miou",
        "test mIoU",
        confusion,
        mean_iou,
    ),
}


# names of the test results in records, and of their measures; agreement needs no labels
MEASURES = {task.result: task.measure for task in TASKS.values()} | {
    "test_agreement": "test agreement"
}


class Measured(NamedTuple):
    """A test result of a record.

    Attributes:
        name: Name of the result in the record, such as `test_miou`.
        percent: The result in %.
    """

    name: str
    percent: float

    @property
    def measure(self) -> str:
        """Name of the measure in tables, such as test mIoU."""
        return MEASURES[self.name]

    @property
    def kind(self) -> str:
        """Name of the measure without the images that it was measured on, such as mIoU."""
        return self.measure.removeprefix("test ")


def find_result(record: Mapping[str, object]) -> Measured | None:
    """Return the test result in a row of a history or the result of a training; None without one.

    Args:
        record: Values by name.
    """
    known = ((name, number(record.get(name))) for name in MEASURES)
    return next((Measured(name, value) for name, value in known if value is not None), None)


def list_tasks() -> list[str]:
    """List the names of the tasks."""
    return list(TASKS)


def task_of(data: Dataset) -> Task:
    """Return the task of a data set."""
    return TASKS[data.task]
