"""The comparison table of a report: the teacher, and the student by each way of training."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diswot.errors import UserError
from diswot.reports.formats import basename, epochs
from diswot.reports.networks import Sizes
from diswot.runs.folder import training_result
from diswot.runs.records import Run, TrainingRecord
from diswot.utils.untrusted import number


@dataclass(frozen=True)
class ComparedNetwork:
    """A row of the comparison table: a network and its test accuracy.

    Attributes:
        name: Role of the network, and the name of its teacher.
        sizes: None if not known.
        accuracy: Test accuracy in percent, mean over the trainings; None if not known.
        trained: Number of epochs and of trainings.
        spread: Lowest and highest accuracy, if there are several trainings.
        folders: Folders of the trainings, relative to the run folder where they lie in it.
    """

    name: str
    sizes: Sizes | None
    accuracy: float | None = None
    trained: str = ""
    spread: str = ""
    folders: tuple[str, ...] = ()


def compared_teacher(run: Run, config: Mapping[str, Any], sizes: Sizes | None) -> ComparedNetwork:
    """Return the row of the teacher of a search.

    Its accuracy comes from `trained.json` beside its weights, or else from a training in the run.

    Args:
        run: The run.
        config: Settings of the search.
        sizes: Sizes of the teacher; None if not known.
    """
    name = f"teacher: {basename(str(config.get('teacher', 'teacher')))}"
    accuracy, folder = next(_teacher_trainings(run, config), (None, ""))
    return ComparedNetwork(name, sizes, accuracy, folders=(folder,) if folder else ())


def _teacher_trainings(run: Run, config: Mapping[str, Any]) -> Iterator[tuple[float, str]]:
    """Yield accuracy and folder of the teacher's trainings, the surest match first.

    First the weights that the search used, then those that a distillation used, then trainings
    of a network with the teacher's name.
    """
    name, results = config.get("teacher"), [training.result for training in run.trainings]
    for each in (config, *(result for result in results if result.get("teacher") == name)):
        weights = each.get("teacher_weights")
        if isinstance(weights, str) and (accuracy := _accuracy_beside(Path(weights))) is not None:
            yield accuracy, _relative(run.folder, Path(weights).parent)
    for training in run.trainings:
        accuracy = number(training.result.get("test_accuracy"))
        alone = training.result.get("student") == name and not training.result.get("teacher")
        if alone and accuracy is not None:
            yield accuracy, training.name


def _accuracy_beside(weights: Path) -> float | None:
    """Return the test accuracy that the training wrote beside its weights, if there is one."""
    try:
        return number(training_result(weights.parent).get("test_accuracy"))
    except UserError:
        return None


def _relative(folder: Path, place: Path) -> str:
    """Return a path relative to a folder, or unchanged if it lies outside."""
    root = folder.resolve()
    inside = place.is_relative_to(root) and place != root
    return str(place.relative_to(root)) if inside else str(place)


def compared_students(
    run: Run, params: Mapping[str, Any], sizes: Sizes | None
) -> list[ComparedNetwork]:
    """Return a row for each way in which the student was trained.

    Args:
        run: The run.
        params: Parameters of the student.
        sizes: Sizes of the student; None if not known.
    """
    ways: dict[tuple[str, str], list[TrainingRecord]] = {}
    for training in run.trainings:
        result = training.result
        if result.get("student") == params and number(result.get("test_accuracy")) is not None:
            teacher = result.get("teacher")
            way = f"distilled from {basename(str(teacher))}" if teacher else "trained alone"
            ways.setdefault((way, epochs(result.get("epochs"))), []).append(training)
    return [
        _averaged(f"student, {way}", length, sizes, trainings)
        for (way, length), trainings in ways.items()
    ] or [ComparedNetwork("student, not trained yet", sizes)]


def _averaged(
    name: str, length: str, sizes: Sizes | None, trainings: list[TrainingRecord]
) -> ComparedNetwork:
    """Return one row for trainings with the same teacher and number of epochs."""
    folders = tuple(training.name for training in trainings)
    tests = [float(training.result["test_accuracy"]) for training in trainings]
    if len(tests) == 1:
        return ComparedNetwork(name, sizes, tests[0], length, folders=folders)
    trained = f"{length}, mean of {len(tests)} runs"
    spread = f"{min(tests):.2f} to {max(tests):.2f}"
    return ComparedNetwork(name, sizes, statistics.fmean(tests), trained, spread, folders)
