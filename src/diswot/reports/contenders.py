"""The comparison of a report: the teacher, and the student in each way that it was trained."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diswot.errors import UserError
from diswot.reports.formats import epochs, last
from diswot.reports.networks import Sizes
from diswot.runs.folder import training_result
from diswot.runs.records import Run, TrainingRecord
from diswot.utils.untrusted import number


@dataclass(frozen=True)
class Contender:
    """A network that was trained, or is to be.

    Attributes:
        name: What it is, and who taught it.
        sizes: None where they are not known.
        accuracy: On the test images, in %; the mean of its trainings.
        what: How long it was trained, and how often.
        spread: The lowest and the highest accuracy of several trainings.
        folders: Where its trainings lie, from the run folder on.
    """

    name: str
    sizes: Sizes | None
    accuracy: float | None = None
    what: str = ""
    spread: str = ""
    folders: tuple[str, ...] = ()


def teacher(run: Run, config: Mapping[str, Any], sizes: Sizes | None) -> Contender:
    """The teacher of a search, with what is told beside its weights, or else in the run."""
    name = f"teacher: {last(str(config.get('teacher', 'teacher')))}"
    accuracy, folder = next(_trained_teachers(run, config), (None, ""))
    return Contender(name, sizes, accuracy, folders=(folder,) if folder else ())


def _trained_teachers(run: Run, config: Mapping[str, Any]) -> Iterator[tuple[float, str]]:
    """Accuracy and folder: of the weights of the search, of those of a training, of its name."""
    name, results = config.get("teacher"), [training.result for training in run.trainings]
    for each in (config, *(result for result in results if result.get("teacher") == name)):
        weights = each.get("teacher_weights")
        if isinstance(weights, str) and (accuracy := _accuracy_beside(Path(weights))) is not None:
            yield accuracy, _from(run.folder, Path(weights).parent)
    for one in run.trainings:
        alone = one.result.get("student") == name and not one.result.get("teacher")
        if alone and one.accuracy is not None:
            yield one.accuracy, one.name


def _accuracy_beside(weights: Path) -> float | None:
    """Return the test accuracy that the training wrote beside its weights, if there is one."""
    try:
        return number(training_result(weights.parent).get("test_accuracy"))
    except UserError:
        return None


def _from(folder: Path, place: Path) -> str:
    """A place as it is seen from a folder, if it is in there."""
    whole = folder.resolve()
    inside = place.is_relative_to(whole) and place != whole
    return str(place.relative_to(whole)) if inside else str(place)


def students(run: Run, params: Mapping[str, Any], sizes: Sizes | None) -> list[Contender]:
    """The student, a line a way to train it."""
    ways: dict[tuple[str, str], list[TrainingRecord]] = {}
    for training in run.trainings:
        result = training.result
        if result.get("student") == params and training.accuracy is not None:
            taught = result.get("teacher")
            way = f"distilled from {last(str(taught))}" if taught else "trained alone"
            ways.setdefault((way, epochs(result.get("epochs"))), []).append(training)
    return [
        _student(f"student, {way}", long, sizes, alike) for (way, long), alike in ways.items()
    ] or [Contender("student, not trained yet", sizes)]


def _student(name: str, long: str, sizes: Sizes | None, alike: list[TrainingRecord]) -> Contender:
    """Of trainings that differ in their seeds, or in what is not told apart here."""
    folders = tuple(training.name for training in alike)
    tests = [float(training.result["test_accuracy"]) for training in alike]
    if len(tests) == 1:
        return Contender(name, sizes, tests[0], long, folders=folders)
    what, spread = f"{long}, mean of {len(tests)} runs", f"{min(tests):.2f} to {max(tests):.2f}"
    return Contender(name, sizes, statistics.fmean(tests), what, spread, folders)
