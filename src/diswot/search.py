"""The search of a space for the student with the highest score, and its result."""

from __future__ import annotations

import contextlib
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
import torch
from torch import nn

from diswot.budget import COSTS, Budget, Excess, count
from diswot.cluster import Cluster
from diswot.crew import Staff
from diswot.data import Batch
from diswot.devices import CPU
from diswot.devices import kind as device_kind
from diswot.elapsed import Watch, runs
from diswot.ends import END, End
from diswot.errors import SearchFailed, UserError, unknown
from diswot.examiner import Setup
from diswot.firsts import Scored
from diswot.loop import Crew, Latency, Loop, Progress
from diswot.pareto import front
from diswot.presence import Others
from diswot.proxies import get, standard_error
from diswot.samplers import SAMPLERS
from diswot.spaces import Build, Params, network
from diswot.storage import alone, open_study, opened

__all__ = ["SAMPLERS", "Found", "Progress", "Student", "search"]

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


def search(
    teacher: nn.Module,
    space: Build,
    batches: Batch | Sequence[Batch],
    *,
    trials: int = 100,
    proxy: str = "default",
    objectives: Sequence[str] = ("score",),
    budget: Budget | None = None,
    latency: Latency | None = None,
    sampler: str | None = None,
    init: str | None = None,
    seed: int = 0,
    trained_teacher: bool = False,
    workers: int | None = None,
    threads: int | None = None,
    timeout: float | None = None,
    devices: Sequence[str] = (),
    cluster: Cluster | None = None,
    storage: str | Path | None = None,
    study_name: str = "diswot",
    resume: bool = False,
    config: Mapping[str, Any] | None = None,
    on_trial: Callable[[Progress], None] = lambda progress: None,
) -> Found:
    """Search a space for the student with the highest score, without training any.

    With several objectives it is searched for the front of them: the students that no other is
    better than in one objective and as good in the rest. A space with at most `trials`
    architectures is searched exhaustively. An architecture is scored once, however often it is
    proposed.

    Args:
        teacher: Looked at once a batch, before the first candidate.
        space: A function of an Optuna trial that returns a network.
        batches: Normalised images and labels, or one such batch a repeat.
        trials: Candidates within the budget to look at.
        proxy: A key of `proxies.PROXIES`.
        objectives: `score`, to be high, and names of `budget.COSTS`, to be low.
        budget: Limits; candidates outside are never scored.
        latency: Measures the seconds of one image of an architecture, given its parameters: a
            `budget.latency.Meter`, as a rule. Needed where latency is limited or an objective.
        sampler: A key of `SAMPLERS`; if not given evolution, or nsga2 for several objectives.
        init: A key of `initialise.INITS`; the proxy's own if not given.
        seed: Of the proposals and of all weights.
        trained_teacher: Take the teacher's weights as they are, instead of drawing fresh ones.
        workers: Processes to score in, each of which looks at the teacher; this process if not
            given. A candidate that kills its process, or hangs, then is one that failed. The
            teacher, the space and the batches must be possible to pickle.
        threads: Of each process; if not given one of each worker, or all in this process. Scores
            are the same to the last bit where the number of threads is.
        timeout: Seconds that a candidate may take, in a worker.
        devices: Where to score, by torch's names, all of one kind: worker i on device i, from the
            first on again; if there are several, and no number of workers, one worker on each.
            Where the batches are, if not given.
        cluster: Have workers on a Ray cluster, as many as it holds if `workers` is not given.
        storage: A run folder for the journal, or an Optuna storage URL; memory if not given.
        study_name: Name of the study in the storage.
        resume: Go on with the study that is there, if there is one. A study in a database is
            joined anyway: any number of processes, anywhere, may be at it at the same time.
        config: Plain facts that a resumed study must share, such as the teacher's name.
        on_trial: Called at first and after each trial.

    Raises:
        UserError: A name is unknown, nothing fits the budget, or the study cannot be resumed.
        SearchFailed: Every candidate failed.
    """
    start = time.perf_counter()
    limits = budget or Budget()
    sampler = _check(objectives, limits, latency, sampler)
    init = init or get(proxy).init
    repeats = [batches] if isinstance(batches, Batch) else list(batches)
    if trials < 1 or not repeats:
        raise UserError("a search needs at least one trial and one batch")
    staff = Staff(workers, threads, timeout, tuple(devices), cluster)
    setup = Setup(
        teacher,
        space,
        tuple(repeats),
        proxy,
        limits,
        tuple(objectives),
        init,
        seed,
        trained_teacher,
    )
    facts = {"proxy": proxy, "init": init, "seed": seed, "trained_teacher": trained_teacher}
    facts |= {"batches": [list(batch.images.shape) for batch in repeats]}
    facts |= {"sampler": sampler, "budget": asdict(limits)}
    facts |= {"objectives": list(objectives), **(config or {})}
    kind = device_kind(staff.devices(repeats[0].images.device))
    facts |= {} if kind == CPU else {"device": kind}
    with torch.random.fork_rng(devices=[]), staff.crew(setup) as crew:
        plan = _plan(crew, trials)
        proposals = SAMPLERS[sampler](seed)
        directions = [_direction(name) for name in objectives]
        shared = "://" in str(storage)
        with (
            contextlib.nullcontext() if storage is None or shared else alone(Path(storage)),
            opened(storage) as place,
        ):
            study = open_study(
                place,
                study_name,
                proposals,
                resume=resume or shared,
                directions=directions,
            )
            _agree(study, facts)
            others = Others(study) if shared else None
            loop = Loop(study, crew, setup.objectives, latency, others)
            watch = Watch(study, start)
            with contextlib.nullcontext() if others is None else others.present():
                _go(loop, plan, trials, _watched(on_trial, watch))
            watch.stop()
            return _found(loop, setup, plan is not None)


def _go(
    loop: Loop, plan: list[Params] | None, trials: int, on_trial: Callable[[Progress], None]
) -> None:
    loop.recall()
    try:
        if plan is None:
            loop.sample(trials, on_trial)
        else:
            loop.visit(plan, on_trial)
    finally:
        if loop.others is not None:
            loop.leave()


def _watched(on_trial: Callable[[Progress], None], watch: Watch) -> Callable[[Progress], None]:
    """The same, which keeps the time when a trial has ended; the first call is before any."""
    begun = False

    def told(progress: Progress) -> None:
        nonlocal begun
        if begun:
            watch.look()
        begun = True
        on_trial(progress)

    return told


def _plan(crew: Crew, trials: int) -> list[Params] | None:
    """All architectures of the space, or None: too many, or not to be looked at."""
    crew.put("plan", ("enumerate", trials), patience=trials + 2)
    while not (outcomes := crew.wait(lambda key, question: None)):
        pass
    plan: list[Params] | None = outcomes[0].result
    return plan


def check_objectives(names: Sequence[str]) -> None:
    """Refuse objectives that are unknown or do not go together.

    Raises:
        UserError: They are not score and costs, each once.
    """
    for name in names:
        if name != "score" and name not in COSTS:
            raise unknown("objective", name, ["score", *COSTS])
    if "score" not in names or len(set(names)) < len(names):
        raise UserError("the objectives must be score and costs, each once, as score,latency")


def _check(
    objectives: Sequence[str], budget: Budget, latency: Latency | None, sampler: str | None
) -> str:
    """Refuse what does not go together; the sampler, if none is named."""
    check_objectives(objectives)
    if "latency" in {*objectives, *budget.limits} and latency is None:
        raise UserError("latency is limited or an objective, and nothing is given to measure it")
    several = len(objectives) > 1
    sampler = sampler or ("nsga2" if several else "evolution")
    if sampler not in SAMPLERS:
        raise unknown("sampler", sampler, SAMPLERS)
    if several and sampler == "evolution":
        raise UserError("evolution has one objective; for several take nsga2, tpe or random")
    return sampler


def _direction(objective: str) -> Literal["maximize", "minimize"]:
    return "maximize" if objective == "score" else "minimize"


def _agree(study: optuna.Study, facts: Mapping[str, Any]) -> None:
    """Store the facts of a new study; refuse to resume one that differs in them."""
    before = study.user_attrs.get("config")
    now = json.loads(json.dumps(facts, default=str))
    if before is None:
        if study.get_trials(deepcopy=False) and "config" not in study.user_attrs:
            raise UserError(f"the study {study.study_name!r} there is of something else")
        study.set_user_attr("config", now)
        return
    if not isinstance(before, dict):
        raise UserError(f"the study {study.study_name!r} was not written by a search")
    _compare(before, now)


def _compare(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse the first fact that differs, by its own name where facts are of facts."""
    for name in sorted(before.keys() | now.keys()):
        was, is_now = before.get(name), now.get(name)
        if isinstance(was, dict) and isinstance(is_now, dict):
            _compare(was, is_now)
        elif was != is_now:
            raise UserError(f"the search to resume has {name} = {was!r}, not {is_now!r}")


def _found(loop: Loop, setup: Setup, exhaustive: bool) -> Found:
    """The result of everything in the study."""
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
    counts = count(network(setup.space, end["params"]), (channels, height, width))
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
