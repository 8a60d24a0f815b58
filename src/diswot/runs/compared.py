"""Several runs side by side: what was searched, what was found, and how well it was trained."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from diswot.costs.budget import show_costs
from diswot.errors import UserError
from diswot.proxies.registry import score_title
from diswot.runs.read import load_run
from diswot.runs.records import Run, SearchRecord, TrainingRecord
from diswot.storage.run_files import ALONE, DISTILLED
from diswot.utils.notebook import Curve, data_frame, html_table, panels
from diswot.utils.units import show_count, show_number, show_params, show_seconds
from diswot.utils.untrusted import mapping, number, numbers

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure


class Condition(NamedTuple):
    """What two accuracies must share to be compared.

    Attributes:
        data: Images of the training: a name, or the whole path of a folder.
        epochs: Number of epochs of the training.
        measure: Name of the test result, such as test accuracy.
    """

    data: str
    epochs: int
    measure: str

    def __str__(self) -> str:
        return self.title(_text(self.data) or self.data)

    def title(self, data: str) -> str:
        """Return the number of epochs, and the images as they are to be named."""
        return f"{show_number(self.epochs, 'epoch')} on {data}"


@dataclass(frozen=True)
class TestedStudent:
    """The test result of a run's student after trainings of one kind.

    Attributes:
        way: `distilled` or `alone`.
        data: Images of the trainings: a name, or the whole path of a folder.
        epochs: Number of epochs of each training.
        measure: Name of the test result: test accuracy, or that of another task.
        accuracy: Test result in %, mean over the trainings.
        trainings: Number of trainings.
    """

    way: str
    data: str
    epochs: int
    measure: str
    accuracy: float
    trainings: int

    @property
    def condition(self) -> Condition:
        """What another accuracy must share to be compared with this one."""
        return Condition(self.data, self.epochs, self.measure)


@dataclass(frozen=True)
class ComparedRun:
    """A run in a comparison; None is what the run does not record.

    Attributes:
        folder: Run folder, as the user named it.
        teacher: Name of the teacher.
        data: Images that students were scored on.
        space: Search space.
        score: Name of the score.
        budget: Limits of the search as a text; empty without a limit.
        scored: Number of students that were scored.
        best_score: Score of the student that was found.
        student: Parameters of the student that was found, or a network's name.
        model_params: Parameters of the student.
        macs: Multiply-adds of the student for one image.
        latency: Measured seconds of the student for one image.
        accuracies: Accuracies of the student after its trainings in the folder.
        seconds: Duration of the search, or of the training in a folder without a search.
    """

    folder: str
    teacher: str | None
    data: str | None
    space: str | None
    score: str | None = None
    budget: str | None = None
    scored: int | None = None
    best_score: float | None = None
    student: Any = None
    model_params: float | None = None
    macs: float | None = None
    latency: float | None = None
    accuracies: tuple[TestedStudent, ...] = ()
    seconds: float | None = None


@dataclass(frozen=True, repr=False)
class RunComparison:
    """Several runs side by side, in the order in which they were named."""

    runs: tuple[ComparedRun, ...]

    def conditions(self) -> list[Condition]:
        """Return what accuracies can be compared at, the fewest epochs first."""
        found = {each.condition for run in self.runs for each in run.accuracies}
        return sorted(found, key=lambda each: (each.epochs, each.data, each.measure))

    def titles(self) -> dict[Condition, str]:
        """Return a title for each condition; folders of one name are shown with their paths."""
        known = self.conditions()
        shown = Counter(map(str, known))
        return {
            each: str(each) if shown[str(each)] == 1 else each.title(each.data) for each in known
        }

    def accuracies(self, condition: Condition, way: str) -> list[tuple[ComparedRun, float]]:
        """Return the runs whose student was trained in a way under a condition, with accuracies."""
        return [
            (run, each.accuracy)
            for run in self.runs
            for each in run.accuracies
            if (each.condition, each.way) == (condition, way)
        ]

    def curves(self, condition: Condition) -> list[Curve]:
        """Return the accuracies under a condition against the parameters, a curve for each way."""
        known = {way: self.accuracies(condition, way) for way in (DISTILLED, ALONE)}
        return [
            Curve(
                way,
                [float(run.model_params or 0) for run, _ in pairs],
                [accuracy for _, accuracy in pairs],
                [run.folder for run, _ in pairs],
                "markers",
            )
            for way, pairs in known.items()
            if pairs
        ]

    def table(self) -> dict[str, list[str]]:
        """Return the cells of a table: a row for each fact, a column for each run."""
        rows = {
            title: [_shown(getattr(run, name), show) for run in self.runs]
            for title, (name, show) in _SHOWN.items()
        }
        accuracies = {
            f"{condition.measure} %, {way}, {title}": self._tested(condition, way)
            for condition, title in self.titles().items()
            for way in (DISTILLED, ALONE)
            if self.accuracies(condition, way)
        }
        seconds = [_shown(run.seconds, "{:.1f}".format) for run in self.runs]
        return {**rows, **accuracies, "seconds": seconds}

    def _tested(self, condition: Condition, way: str) -> list[str]:
        """Return the test results of one row of the table, a cell for each run."""
        cells = []
        for run in self.runs:
            known = (e for e in run.accuracies if (e.condition, e.way) == (condition, way))
            each = next(known, None)
            mean = f" (mean of {each.trainings})" if each and each.trainings > 1 else ""
            cells.append(f"{each.accuracy:.2f}{mean}" if each else "-")
        return cells

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)

    def to_dataframe(self) -> DataFrame:
        """Return a pandas data frame: a row for each run, by its folder.

        Accuracies after different numbers of epochs, or on different images, have columns of their
        own, such as `distilled 2 epochs on digits`.
        """
        rows, titles = [], self.titles()
        for run in self.runs:
            facts = asdict(run)
            del facts["accuracies"]
            tested = {
                f"{each.way} {titles[each.condition]}": each.accuracy for each in run.accuracies
            }
            rows.append({**facts, **tested})
        return data_frame(rows, "folder")

    def plot(self) -> Figure:
        """Return a Plotly figure of accuracy against parameters.

        Each number of epochs, and each data set, has a panel of its own.

        Raises:
            UserError: No student was trained.
        """
        found = self.titles()
        if not found:
            raise UserError("no student of these runs was trained; diswot distill RUN trains one")
        drawn = {title: self.curves(condition) for condition, title in found.items()}
        return panels(drawn, "params", "test result, %")

    def __repr__(self) -> str:
        return f"RunComparison({', '.join(run.folder for run in self.runs)})"

    def _repr_html_(self) -> str:
        rows = [(name, *cells) for name, cells in self.table().items()]
        columns = ("", *(run.folder for run in self.runs))
        return f"<p>{escape(repr(self))}</p>{html_table(columns, rows)}"


def compare_runs(*folders: str | Path) -> RunComparison:
    """Read several run folders, to compare what they found.

    Args:
        folders: Folders of `diswot search` or `diswot distill`.

    Raises:
        UserError: A folder holds neither a search nor a training.
    """
    return RunComparison(tuple(_compared(str(each), load_run(each)) for each in folders))


def _compared(name: str, run: Run) -> ComparedRun:
    """Return a run of a search, or of a training alone."""
    if run.search is not None:
        return _searched(name, run.search, run.trainings)
    known = [each for each in run.trainings if each.result]
    if not known:
        raise UserError(f"{name} holds no search and no finished training")
    facts = known[0].result
    return ComparedRun(
        folder=name,
        teacher=_text(facts.get("teacher")),
        data=_text(facts.get("data")),
        space=_text(facts.get("space")),
        student=facts.get("student"),
        model_params=number(facts.get("model_params")),
        macs=number(facts.get("macs")),
        accuracies=_tests(known, facts.get("student")),
        seconds=number(facts.get("seconds")),
    )


def _searched(name: str, search: SearchRecord, trainings: Sequence[TrainingRecord]) -> ComparedRun:
    """Return a search; its student is the one that it recorded, or else the best so far."""
    config, best, count = search.config, mapping(search.found.get("best")), len(search.scored())
    if not best and count:
        first = search.scored()[0]
        best = {**asdict(first), "latency": first.cost("latency")}
    limits = {n.removeprefix("max_"): v for n, v in numbers(config.get("budget")).items()}
    scored = number(search.found.get("scored"))
    return ComparedRun(
        folder=name,
        teacher=_text(config.get("teacher")),
        data=_text(config.get("data")),
        space=_text(config.get("space")),
        score=_text(config.get("proxy")),
        budget=show_costs(limits) if "budget" in config else None,
        scored=count if scored is None else int(scored),
        best_score=number(best.get("score")),
        student=mapping(best.get("params")) if best else None,
        model_params=number(best.get("model_params")),
        macs=number(best.get("macs")),
        latency=number(best.get("latency")),
        accuracies=_tests(trainings, best.get("params")),
        seconds=search.seconds,
    )


def _tests(trainings: Sequence[TrainingRecord], student: Any) -> tuple[TestedStudent, ...]:
    """Return the accuracies of a student, a mean for each way, data set and number of epochs."""
    kinds: dict[tuple[str, str, int, str], list[float]] = {}
    for each in trainings:
        facts, epochs = each.result, number(each.result.get("epochs"))
        if facts.get("student") != student or epochs is None:
            continue
        way = DISTILLED if facts.get("teacher") else ALONE
        data = facts.get("data")
        data = data if isinstance(data, str) and data else "unknown images"
        if (tested := each.tested) is not None:
            kinds.setdefault((way, data, int(epochs), tested.measure), []).append(tested.percent)
    return tuple(
        TestedStudent(*key, statistics.fmean(values), len(values))
        for key, values in sorted(kinds.items())
    )


def _text(value: object) -> str | None:
    """Return the last part of a path or a name; None for any value that is no text."""
    return value.rstrip("/").rpartition("/")[2] or value if isinstance(value, str) else None


def _shown(value: Any, show: Any = str) -> str:
    return "-" if value is None else show(value)


def _student(value: Any) -> str:
    """Return parameters of an architecture, or the name of a network, as a text."""
    return show_params(value) if isinstance(value, Mapping) else str(value)


_SHOWN = {
    "teacher": ("teacher", str),
    "data": ("data", str),
    "space": ("space", str),
    "score": ("score", score_title),
    "budget": ("budget", lambda text: text or "no limit"),
    "scored": ("scored", str),
    "best score": ("best_score", "{:.5g}".format),
    "student": ("student", _student),
    "params": ("model_params", show_count),
    "MACs": ("macs", show_count),
    "latency": ("latency", show_seconds),
}
