"""The comparison table of a report: the teacher, and the student by each way of training."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diswot.errors import UserError
from diswot.reports.formats import basename, epochs
from diswot.reports.networks import Sizes
from diswot.runs.folder import training_result
from diswot.runs.records import Run
from diswot.tasks.registry import TASKS, Measured, find_result


@dataclass(frozen=True)
class ComparedNetwork:
    """A row of the comparison table: a network and its test result.

    Attributes:
        name: Role of the network, and the name of its teacher.
        sizes: None if not known.
        percent: Test result in percent, mean over the trainings; None if not known.
        trained: Number of epochs, images, and number of trainings.
        spread: Lowest and highest result, if there are several trainings.
        folders: Folders of the trainings, relative to the run folder where they lie in it.
        result: Name of the test result in the records.
    """

    name: str
    sizes: Sizes | None
    percent: float | None = None
    trained: str = ""
    spread: str = ""
    folders: tuple[str, ...] = ()
    result: str = TASKS["classification"].result

    @property
    def tested(self) -> Measured | None:
        """The test result; None if not known."""
        return None if self.percent is None else Measured(self.result, self.percent)


def shared_measure(results: Iterable[Measured | None]) -> str:
    """Return the name of the measure that all results have; `test result` if there is none."""
    measures = {each.measure for each in results if each is not None}
    return measures.pop() if len(measures) == 1 else "test result"


def compared_teacher(run: Run, config: Mapping[str, Any], sizes: Sizes | None) -> ComparedNetwork:
    """Return the row of the teacher of a search.

    Its test result comes from `trained.json` beside its weights, or else from a training of the
    run.
    """
    name = f"teacher: {basename(str(config.get('teacher', 'teacher')))}"
    for tested, folder in _teacher_trainings(run, config):
        return ComparedNetwork(name, sizes, tested.percent, folders=(folder,), result=tested.name)
    return ComparedNetwork(name, sizes)


def _teacher_trainings(run: Run, config: Mapping[str, Any]) -> Iterator[tuple[Measured, str]]:
    """Yield test result and folder of the teacher's trainings, the surest match first.

    First the weights that the search used, then those that a distillation used, then trainings
    of a network with the teacher's name.
    """
    name, results = config.get("teacher"), [training.result for training in run.trainings]
    for each in (config, *(result for result in results if result.get("teacher") == name)):
        weights = each.get("teacher_weights")
        if isinstance(weights, str) and (tested := _result_beside(Path(weights))) is not None:
            yield tested, _relative(run.folder, Path(weights).parent)
    for training in run.trainings:
        alone = training.result.get("student") == name and not training.result.get("teacher")
        if alone and training.tested is not None:
            yield training.tested, training.name


def _result_beside(weights: Path) -> Measured | None:
    """Return the test result that the training wrote beside its weights, if there is one."""
    try:
        return find_result(training_result(weights.parent))
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
    """Return a row for each way in which the student was trained."""
    ways: dict[tuple[str, str, str], dict[str, float]] = {}
    for training in run.trainings:
        result, tested = training.result, training.tested
        if result.get("student") == params and tested is not None:
            teacher = result.get("teacher")
            way = f"distilled from {basename(str(teacher))}" if teacher else "trained alone"
            data = f" on {basename(result['data'])}" if isinstance(result.get("data"), str) else ""
            key = (way, epochs(result.get("epochs")) + data, tested.name)
            ways.setdefault(key, {})[training.name] = float(tested.percent)
    return [
        _averaged(f"student, {way}", length, sizes, name, tests)
        for (way, length, name), tests in ways.items()
    ] or [ComparedNetwork("student, not trained yet", sizes)]


def _averaged(
    name: str, length: str, sizes: Sizes | None, result: str, tests: Mapping[str, float]
) -> ComparedNetwork:
    """Return one row for trainings with the same teacher, epochs, images and test result."""
    percents, spread = list(tests.values()), ""
    if len(percents) > 1:
        length = f"{length}, mean of {len(percents)} runs"
        spread = f"{min(percents):.2f} to {max(percents):.2f}"
    mean = statistics.fmean(percents)
    return ComparedNetwork(name, sizes, mean, length, spread, tuple(tests), result)
