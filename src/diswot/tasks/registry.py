"""The table of tasks, and the test results that records name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from diswot.data.dataset import Dataset
from diswot.tasks.classification import CLASSIFICATION
from diswot.tasks.detection import DETECTION
from diswot.tasks.segmentation import SEGMENTATION
from diswot.tasks.task import Task
from diswot.utils.untrusted import number

TASKS: dict[str, Task] = {
    "classification": CLASSIFICATION,
    "segmentation": SEGMENTATION,
    "detection": DETECTION,
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
    """Return the test result in a row of a history, or of a training; None without one."""
    known = ((name, number(record.get(name))) for name in MEASURES)
    return next((Measured(name, value) for name, value in known if value is not None), None)


def tested_task(record: Mapping[str, object]) -> str | None:
    """Return the name of the task whose test result is in a record; None without one."""
    found = find_result(record)
    named = {task.result: name for name, task in TASKS.items()}
    return named.get(found.name) if found else None


def task_of(data: Dataset) -> Task:
    """Return the task of a data set."""
    return TASKS[data.task]
