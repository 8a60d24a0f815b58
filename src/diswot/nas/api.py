"""The search of a space for the student with the highest score."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import optuna
import torch
from torch import nn

from diswot.costs.budget import COSTS, Budget
from diswot.data.dataset import Batch
from diswot.errors import UserError, unknown
from diswot.executors.ray import Cluster
from diswot.nas.compute import Staff
from diswot.nas.driver import Crew, Latency, Loop, Progress
from diswot.nas.elapsed import Stopwatch
from diswot.nas.evaluator import Setup
from diswot.nas.peers import Others
from diswot.nas.result import Found, found
from diswot.nas.samplers import SAMPLERS
from diswot.proxies.registry import get_proxy
from diswot.spaces.registry import Params
from diswot.spaces.validation import Build
from diswot.storage.study import alone, open_study, opened
from diswot.utils.devices import CPU
from diswot.utils.devices import kind as device_kind


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
    init = init or get_proxy(proxy).init
    repeats = (batches,) if isinstance(batches, Batch) else tuple(batches)
    if trials < 1 or not repeats:
        raise UserError("a search needs at least one trial and one batch")
    wanted = tuple(objectives)
    setup = Setup(teacher, space, repeats, proxy, limits, wanted, init, seed, trained_teacher)
    staff = Staff(workers, threads, timeout, tuple(devices), cluster)
    facts = {**_facts(setup, sampler, staff), **(config or {})}
    with torch.random.fork_rng(devices=[]), staff.crew(setup) as crew:
        plan = _plan(crew, trials)
        with _study(storage, study_name, SAMPLERS[sampler](seed), wanted, resume) as study:
            _agree(study, facts)
            others = Others(study) if _shared(storage) else None
            loop = Loop(study, crew, wanted, latency, others)
            watch = Stopwatch(study, start)
            with contextlib.nullcontext() if others is None else others.present():
                _go(loop, plan, trials, _watched(on_trial, watch))
            watch.stop()
            return found(loop, setup, plan is not None)


def _facts(setup: Setup, sampler: str, staff: Staff) -> dict[str, Any]:
    """What a study that is gone on with must share."""
    names = ("proxy", "init", "seed", "trained_teacher")
    facts: dict[str, Any] = {name: getattr(setup, name) for name in names}
    facts |= {"batches": [list(batch.images.shape) for batch in setup.batches]}
    facts |= {"sampler": sampler, "budget": asdict(setup.budget)}
    facts |= {"objectives": list(setup.objectives)}
    kind = device_kind(staff.devices(setup.batches[0].images.device))
    return facts if kind == CPU else {**facts, "device": kind}


def _shared(storage: str | Path | None) -> bool:
    """Whether several processes may be at a study in that place."""
    return "://" in str(storage)


@contextlib.contextmanager
def _study(
    storage: str | Path | None,
    name: str,
    proposals: optuna.samplers.BaseSampler,
    objectives: Sequence[str],
    resume: bool,
) -> Iterator[optuna.Study]:
    """The study in its place; a run folder is kept from others meanwhile."""
    shared = _shared(storage)
    lock = contextlib.nullcontext() if storage is None or shared else alone(Path(storage))
    directions = [_direction(objective) for objective in objectives]
    with lock, opened(storage) as place:
        going_on = resume or shared
        yield open_study(place, name, proposals, resume=going_on, directions=directions)


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


def _watched(on_trial: Callable[[Progress], None], watch: Stopwatch) -> Callable[[Progress], None]:
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
            raise UserError(f"the search begun before has {name} = {was!r}, not {is_now!r}")
