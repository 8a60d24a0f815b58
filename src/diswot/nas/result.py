"""The result of a search: the best students of everything in its study."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial

from diswot.costs.budget import COSTS
from diswot.costs.counts import count, count_params, count_trainable
from diswot.errors import SearchFailed, UserError
from diswot.nas.driver import Driver
from diswot.nas.evaluator import Evaluator
from diswot.nas.trial_result import TrialResult
from diswot.proxies.scorer import standard_error
from diswot.spaces.registry import Params, build_network
from diswot.utils.notebook import Curve, Mode, data_frame, figure, html_table
from diswot.utils.pareto import pareto_front
from diswot.utils.units import show_count, show_params
from diswot.utils.user_code import name_of

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure

TOP = 10
POOL = 4  # students are taken from the best quarter of all that are scored
SHARE = 3  # different students differ in a third of their choices at least
LEAST = 2  # and in two choices, where the space has them


@dataclass(frozen=True)
class Student:
    """An architecture that was scored.

    Attributes:
        params: Its parameters; `diswot.build_network(space, params)` builds it.
        score: Mean over the repeats; higher is better.
        standard_error: Standard error of that mean; None for one repeat.
        model_params: Parameters.
        macs: Multiply-adds of one image.
        memory: Bytes of live activations at the peak of one image's forward pass.
        latency: Measured seconds of one image, where latency is limited or an objective: the upper
            end of the 95 % interval of the median.
        uncounted: Names of operations with multiply-adds that `macs` leaves out.
        trial: Number of the trial that scored the architecture.
        trainable_params: Parameters that are not frozen; None if none is frozen.
    """

    params: Params
    score: float
    standard_error: float | None
    model_params: int
    macs: int
    memory: int
    latency: float | None
    uncounted: tuple[str, ...]
    trial: int
    trainable_params: int | None = None


@dataclass(frozen=True, repr=False)
class SearchResult:
    """What a search found.

    Attributes:
        best: The student of the highest score; of equal ones the smallest, of these the first.
        top: The ten best different students, the best first.
        objectives: `score`, alone or with names of costs.
        front: With several objectives the Pareto front, the highest score first; else empty.
        trials: Candidates within the budget: scored, reused and failed ones.
        scored: Different candidates that were scored.
        raced: Candidates that two processes scored at the same time.
        reused: Proposals of a candidate that had been scored.
        rejected: Proposals outside the budget, which were not scored.
        failed: Candidates that raised an error or had no finite score.
        failures: Number of failed candidates by reason.
        failed_by_kind: Number of failed candidates by kind: `error`, `memory`, `not finite`,
            `timeout` or `killed`.
        exhaustive: Whether every architecture of the space was proposed.
        stopped: Why the search ended with fewer candidates than it was asked for; else empty.
        seconds: Time during which a trial was open, over all runs and processes of the search.
        seconds_per_candidate: Median seconds of a scored candidate's trial, over all runs.
        diverse: Ten students for short trainings: the best, that with the most parameters, and then
            the best that differ from these and from each other in a third of their choices.
    """

    best: Student
    top: tuple[Student, ...]
    objectives: tuple[str, ...]
    front: tuple[Student, ...]
    trials: int
    scored: int
    raced: int
    reused: int
    rejected: int
    failed: int
    failures: Mapping[str, int] = field(default_factory=dict)
    failed_by_kind: Mapping[str, int] = field(default_factory=dict)
    exhaustive: bool = False
    stopped: str = ""
    seconds: float = 0.0
    seconds_per_candidate: float = 0.0
    diverse: tuple[Student, ...] = ()

    def __repr__(self) -> str:
        best, seconds = self.best, self.seconds
        early = f"; stopped early: {self.stopped}" if self.stopped else ""
        return (
            f"SearchResult(best score {best.score:.5g} of {self.scored} scored students in "
            f"{seconds:.1f} s: {show_params(best.params)}{early})"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)

    def to_dataframe(self) -> DataFrame:
        """Return a pandas data frame: a row for each of the best students, by number of the trial.

        The columns are the fields of `Student`, and a column for each parameter of the space.
        """
        rows = []
        for student in self.top:
            facts = asdict(student)
            params = {f"params_{name}": value for name, value in facts.pop("params").items()}
            rows.append({**facts, **params})
        return data_frame(rows, "trial")

    def plot(self) -> Figure:
        """Return a Plotly figure of the best students: score against parameters.

        With several objectives, the students on the Pareto front are joined, against the first
        cost that was an objective.
        """
        cost = next((name for name in self.objectives if name != "score"), "params")
        curves = [_curve("best students", self.top, cost, "markers")]
        if self.front:
            curves.append(_curve("Pareto front", self.front, cost, "lines+markers"))
        return figure(curves, cost, "score")

    def _repr_html_(self) -> str:
        rows = [
            (
                f"{s.score:.5g}",
                show_count(s.model_params),
                show_count(s.macs),
                show_params(s.params),
            )
            for s in self.top
        ]
        columns = ("score", "params", "MACs", "architecture")
        return f"<p>{escape(repr(self))}</p>{html_table(columns, rows)}"


def _curve(name: str, students: Sequence[Student], cost: str, mode: Mode) -> Curve:
    """Return the score of students against a cost."""
    costs, scores = [_cost(each, cost) for each in students], [each.score for each in students]
    return Curve(name, costs, scores, [show_params(each.params) for each in students], mode)


def _cost(student: Student, name: str) -> float:
    """Return a cost of a student by its name among the objectives; NaN if it was not measured."""
    value = getattr(student, "model_params" if name == "params" else name)
    return math.nan if value is None else float(value)


def search_result(driver: Driver, evaluator: Evaluator, *, exhaustive: bool) -> SearchResult:
    """Return the result of everything in a study.

    Raises:
        UserError: Nothing fits the budget.
        SearchFailed: Every candidate failed.
    """
    history = driver.history
    ranked = sorted((each for each in history if each[1].outcome == "scored"), key=_preference)
    if not ranked:
        raise _nothing(driver, evaluator)
    sizes = [result.model_params or 0 for _, result in ranked]
    places = diverse([trial.params for trial, _ in ranked], TOP, sizes.index(max(sizes)))
    top = tuple(_student(evaluator, *each) for each in ranked[:TOP])
    durations = [t.duration.total_seconds() for t, _ in ranked if t.duration is not None]
    return SearchResult(
        best=top[0],
        top=top,
        objectives=driver.objectives,
        front=_front(evaluator, ranked),
        trials=history.within,
        scored=len(ranked),
        raced=history.outcomes["scored"] - len(ranked),
        reused=history.outcomes["reused"],
        rejected=history.outcomes["rejected"],
        failed=history.outcomes["failed"],
        failures=dict(history.reasons),
        failed_by_kind=dict(history.kinds),
        exhaustive=exhaustive,
        stopped=driver.stopped,
        seconds=elapsed(driver.study.get_trials(deepcopy=False)),
        seconds_per_candidate=statistics.median(durations or [0.0]),
        diverse=tuple(
            top[place] if place < TOP else _student(evaluator, *ranked[place]) for place in places
        ),
    )


def differ(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Say whether two architectures differ in a third of their choices, and in two at least.

    A choice that only one of them has counts as different. Where both have a single choice, one
    difference is enough.
    """
    names = first.keys() | second.keys()
    there = first.keys() & second.keys()
    same = sum(bool(first[name] == second[name]) for name in there)
    return len(names) - same >= min(len(names), max(LEAST, math.ceil(len(names) / SHARE)))


def diverse(ranked: Sequence[Mapping[str, Any]], count: int, second: int = 0) -> list[int]:
    """Return the places of some of the best architectures that differ from each other.

    The first is the best, and the second one that is given. From the best down, an architecture is
    taken if it differs from all that are taken so far. Only the best quarter is looked at. If it
    has too few different ones, the best of the others follow.

    Args:
        ranked: Parameters of the architectures, the best first.
        count: Number of architectures that are wanted.
        second: Place of an architecture that is taken in any case; 0 for none but the best.

    Returns:
        Places in `ranked`: first those that differ, the best first after the second.
    """
    taken = list(dict.fromkeys((0, second)))[: min(count, len(ranked))]
    for place in range(min(len(ranked), max(count, math.ceil(len(ranked) / POOL)))):
        if len(taken) < count and all(differ(ranked[place], ranked[one]) for one in taken):
            taken.append(place)
    others = (place for place in range(len(ranked)) if place not in taken)
    return taken + [place for place, _ in zip(others, range(count - len(taken)), strict=False)]


def elapsed(trials: Sequence[FrozenTrial]) -> float:
    """Return the seconds during which at least one of these trials was open.

    Pauses between the runs of a search do not count, and trials side by side count once.
    """
    spans = sorted(
        (trial.datetime_start, trial.datetime_complete)
        for trial in trials
        if trial.datetime_start is not None and trial.datetime_complete is not None
    )
    total, until = 0.0, None
    for start, end in spans:
        begin = start if until is None or start > until else until
        if end > begin:
            total += (end - begin).total_seconds()
            until = end
    return total


def _front(
    evaluator: Evaluator, ranked: Sequence[tuple[FrozenTrial, TrialResult]]
) -> tuple[Student, ...]:
    """Return the Pareto front of several objectives, in the order of the scores."""
    costs = [name for name in evaluator.objectives if name != "score"]
    if not costs:
        return ()
    losses = [(-(r.score or 0.0), *(r.costs[name] for name in costs)) for _, r in ranked]
    return tuple(_student(evaluator, *ranked[place]) for place in pareto_front(losses))


def _preference(ended: tuple[FrozenTrial, TrialResult]) -> tuple[float, int, int]:
    """Return the place of a scored architecture: the best first, of equal ones the smallest."""
    trial, result = ended
    assert result.score is not None and result.model_params is not None
    return -result.score, result.model_params, trial.number


def _student(evaluator: Evaluator, trial: FrozenTrial, result: TrialResult) -> Student:
    assert result.score is not None and result.model_params is not None
    model = build_network(evaluator.space, trial.params)
    counts, trainable = count(model, evaluator.image_shape), count_trainable(model)
    return Student(
        params=dict(trial.params),
        score=result.score,
        standard_error=standard_error(result.scores[name_of(evaluator.scoring.proxy)]),
        model_params=result.model_params,
        macs=counts.macs,
        memory=counts.memory,
        latency=result.costs.get("latency"),
        uncounted=counts.uncounted,
        trial=trial.number,
        trainable_params=None if trainable == count_params(model) else trainable,
    )


def _nothing(driver: Driver, evaluator: Evaluator) -> Exception:
    """Return the error that says why no candidate was scored."""
    history = driver.history
    if history.reasons:
        ((reason, _),) = history.reasons.most_common(1)
        within = " within the budget" if history.outcomes["rejected"] else ""
        failed = history.outcomes["failed"]
        return SearchFailed(f"no candidate{within} has a score; {failed} failed, such as: {reason}")
    assert history.nearest is not None
    nearest, result = history.ended(history.nearest[1])
    rejected = result.rejected
    assert rejected is not None
    broken = next(name for name, cost in COSTS.items() if cost.unit == rejected.of)
    kept = [name for name in result.margins if name != broken]
    among = f" of those within max_{' and max_'.join(kept)}" if kept else ""
    show = COSTS[broken].show
    model = build_network(evaluator.space, nearest.params)
    counts = count(model, evaluator.image_shape)
    sizes = f"{show_count(count_params(model))} params, {show_count(counts.macs)} MACs"
    return UserError(
        f"no student fits the budget among {len(history):,} different ones: none{among} keeps "
        f"max_{broken} {show(rejected.limit)}; the nearest has {show(rejected.value)} "
        f"({sizes}): {show_params(nearest.params)}"
    )
