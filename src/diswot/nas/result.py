"""What a search found: the result of everything in its study."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import optuna

from diswot.costs.budget import Excess
from diswot.costs.counts import count
from diswot.errors import SearchFailed, UserError
from diswot.nas.driver import Loop
from diswot.nas.elapsed import runs
from diswot.nas.evaluator import Setup
from diswot.nas.history import Scored
from diswot.nas.trial_result import END, End
from diswot.proxies.scorer import standard_error
from diswot.spaces.registry import Params, build_network
from diswot.utils.pareto import front

TOP = 10


@dataclass(frozen=True)
class Student:
    """An architecture that was scored.

    Attributes:
        params: Its choices; `spaces.network(space, params)` builds it.
        score: Higher is better; the mean over the repeats.
        standard_error: Of that mean; None for a single repeat.
        model_params: Trainable parameters.
        macs: Multiply-adds of one image.
        memory: Bytes of live activations at the peak of one image's forward pass.
        latency: Measured seconds of one image, if it is limited or an objective.
        uncounted: Operations with multiply-adds that are not in `macs`, by name.
        trial: Number of the trial that scored it.
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


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        best: The student of the highest score; of equal ones the smallest, of these the first.
        top: The ten best different students, the best first.
        objectives: What the search was for: `score`, alone or with costs.
        front: With several objectives the students that none is better than in all of them, the
            one of the highest score first; else none.
        trials: Candidates within the budget: scored, reused and failed ones.
        scored: Different candidates that were scored.
        raced: Candidates that two processes scored at the same time.
        reused: Proposals of a candidate that had been scored.
        rejected: Proposals outside the budget, which were not scored.
        failed: Candidates that raised or had no finite score.
        failures: The reasons, and how many failed for each.
        failed_by_kind: How many raised an `error`, ran out of `memory`, were `not finite`, took too
            long (`timeout`) or had their process `killed`.
        exhaustive: Whether every architecture of the space was looked at.
        seconds: Spent in all runs of the search, this one and those that it went on with or beside,
            the teacher's observation included; of a run that was killed as far as it was kept.
        runs: How many these are; those that found nothing left to do are not counted.
        seconds_per_candidate: Median seconds to build, check and score one candidate: of those of
            this run, if it scored some.
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
    failures: Mapping[str, int]
    failed_by_kind: Mapping[str, int]
    exhaustive: bool
    seconds: float
    runs: int
    seconds_per_candidate: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def found(loop: Loop, setup: Setup, exhaustive: bool) -> Found:
    """The result of everything in the study.

    Args:
        loop: Which is over.
        setup: What candidates were examined with.
        exhaustive: Whether every architecture of the space was looked at.

    Raises:
        UserError: Nothing fits the budget.
        SearchFailed: Every candidate failed.
    """
    ranked = sorted(loop.known.scored([name for name in loop.objectives if name != "score"]))
    if not ranked:
        raise _nothing(loop)
    top = tuple(_student(setup, loop.known.of(each.trial)) for each in ranked[:TOP])
    return Found(
        best=top[0],
        top=top,
        objectives=loop.objectives,
        front=_front(loop, setup, ranked),
        trials=loop.trials(),
        scored=len(ranked),
        raced=loop.ends["scores"] - len(ranked),
        reused=loop.ends["reused"],
        rejected=loop.ends["rejected"],
        failed=loop.ends["failed"],
        failures=dict(loop.reasons),
        failed_by_kind=dict(loop.kinds),
        exhaustive=exhaustive,
        seconds=sum(spent := runs(loop.study)),
        runs=len(spent),
        seconds_per_candidate=statistics.median(loop.seconds or _durations(loop.study) or [0.0]),
    )


def _durations(study: optuna.Study) -> list[float]:
    """Seconds of each candidate that was scored, in whichever run."""
    scored = [t for t in study.get_trials(deepcopy=False) if "scores" in t.user_attrs.get(END, {})]
    return [t.duration.total_seconds() for t in scored if t.duration is not None]


def _front(loop: Loop, setup: Setup, ranked: Sequence[Scored]) -> tuple[Student, ...]:
    """Of several objectives, in the order of the scores."""
    if len(loop.objectives) == 1:
        return ()
    places = front([(each.loss, *each.costs) for each in ranked])
    return tuple(_student(setup, loop.known.of(ranked[place].trial)) for place in places)


def _student(setup: Setup, end: End) -> Student:
    _, channels, height, width = setup.batches[0].images.shape
    counts = count(build_network(setup.space, end["params"]), (channels, height, width))
    return Student(
        params=end["params"],
        score=end["score"],
        standard_error=standard_error(end["scores"][setup.proxy]),
        model_params=end["model_params"],
        macs=counts.macs,
        memory=counts.memory,
        latency=end.get("costs", {}).get("latency"),
        uncounted=counts.uncounted,
        trial=end["trial"],
    )


def _nothing(loop: Loop) -> Exception:
    """Why no candidate was scored."""
    if loop.reasons:
        ((reason, _),) = loop.reasons.most_common(1)
        within = " within the budget" if loop.ends["rejected"] else ""
        count = loop.ends["failed"]
        return SearchFailed(f"no candidate{within} has a score; {count} failed, such as: {reason}")
    rejected = [Excess(**end["rejected"]) for end in loop.known.values()]
    smallest = {each.of: str(each) for each in sorted(rejected, key=lambda e: -e.value)}
    return UserError(
        f"no student fits the budget among {len(rejected)} different ones; "
        f"the smallest: {', '.join(smallest.values())}"
    )
