"""The search: ask for an architecture, check its size, score it without training, tell."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import TrialState
from torch import nn

from diswot.budget import Budget, Shape, count_macs, count_params
from diswot.data import Batch
from diswot.errors import SearchFailed, UserError, unknown
from diswot.evolution import AgingEvolutionSampler, Key, key
from diswot.proxies import Scorer, get, scorer
from diswot.spaces import Build, Params, enumerate_params, network
from diswot.storage import open_storage, open_study

SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "evolution": lambda seed: AgingEvolutionSampler(seed=seed),
    "random": lambda seed: RandomSampler(seed=seed),
    "tpe": lambda seed: TPESampler(seed=seed),
    "nsga2": lambda seed: NSGAIISampler(seed=seed, population_size=20),
}

MAX_REJECTED = 500  # proposals in a row outside the budget before a search gives up
TOP = 10
MAX_FAILED = 20  # first candidates in a row that fail before a search gives up


@dataclass(frozen=True)
class Student:
    """An architecture that was scored.

    Attributes:
        params: Its choices; `spaces.network(space, params)` builds it.
        score: Higher is better; the mean over the repeats.
        model_params: Trainable parameters.
        macs: Multiply-adds of one image.
        trial: Number of the trial that scored it.
    """

    params: Params
    score: float
    model_params: int
    macs: int
    trial: int


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        best: The student of the highest score.
        top: The ten best different students, the best first.
        trials: Candidates within the budget: scored, reused and failed ones.
        scored: Different candidates that were scored.
        reused: Proposals of a candidate that had been scored.
        rejected: Proposals outside the budget, which were not scored.
        failed: Candidates that raised or had no finite score.
        failures: The reasons, and how many failed for each.
        exhaustive: Whether every architecture of the space was looked at.
        seconds: Spent in this call, the teacher's observation included.
        seconds_per_candidate: Median seconds to build, check and score one candidate.
    """

    best: Student
    top: tuple[Student, ...]
    trials: int
    scored: int
    reused: int
    rejected: int
    failed: int
    failures: Mapping[str, int]
    exhaustive: bool
    seconds: float
    seconds_per_candidate: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Progress:
    """Told after each trial: how many of how many are done, and the best score so far."""

    done: int
    total: int
    best: float | None


def search(
    teacher: nn.Module,
    space: Build,
    batches: Batch | Sequence[Batch],
    *,
    trials: int = 100,
    proxy: str = "diswot",
    budget: Budget | None = None,
    sampler: str = "evolution",
    init: str = "gaussian",
    seed: int = 0,
    trained_teacher: bool = False,
    storage: str | Path | None = None,
    study_name: str = "diswot",
    resume: bool = False,
    config: Mapping[str, Any] | None = None,
    on_trial: Callable[[Progress], None] = lambda progress: None,
) -> Found:
    """Search a space for the student with the highest score, without training any.

    A space with at most `trials` architectures is searched exhaustively. An architecture is
    scored once, however often it is proposed.

    Args:
        teacher: Observed once a batch.
        space: A function of an Optuna trial that returns a network.
        batches: Normalised images and labels, or one such batch a repeat.
        trials: Candidates within the budget to look at.
        proxy: A key of `proxies.PROXIES`.
        budget: Limits; candidates outside are never scored.
        sampler: A key of `SAMPLERS`.
        init: A key of `initialise.INITS`.
        seed: Of the proposals and of all weights.
        trained_teacher: Take the teacher's weights as they are, instead of drawing fresh ones.
        storage: A run folder for the journal, or an Optuna storage URL; memory if not given.
        study_name: Name of the study in the storage.
        resume: Go on with the study that is there.
        config: Plain facts that a resumed study must share, such as the teacher's name.
        on_trial: Called after each trial.

    Raises:
        UserError: A name is unknown, nothing fits the budget, or the study cannot be resumed.
        SearchFailed: Every candidate failed.
    """
    start = time.perf_counter()
    if sampler not in SAMPLERS:
        raise unknown("sampler", sampler, SAMPLERS)
    if trials < 1:
        raise UserError(f"a search needs at least one trial, not {trials}")
    get(proxy)
    repeats = [batches] if isinstance(batches, Batch) else list(batches)
    score = scorer(teacher, repeats, init=init, seed=seed, trained_teacher=trained_teacher)
    study = open_study(open_storage(storage), study_name, SAMPLERS[sampler](seed), resume=resume)
    limits = budget or Budget()
    facts = {"proxy": proxy, "init": init, "seed": seed, "repeats": len(repeats)}
    facts |= {"sampler": sampler, "budget": asdict(limits), **(config or {})}
    _agree(study, facts)
    shape = tuple(repeats[0].images.shape[1:])
    run = _Run(study, space, score, proxy, limits, (shape[0], shape[1], shape[2]))
    with torch.random.fork_rng(devices=[]):
        exhaustive = run.go(trials, on_trial)
        return run.found(exhaustive, time.perf_counter() - start)


def _agree(study: optuna.Study, facts: dict[str, Any]) -> None:
    """Store the facts of a new study; refuse to resume one that differs in them."""
    before = study.user_attrs.get("config")
    if before is None:
        study.set_user_attr("config", facts)
        return
    for name in sorted(before.keys() | facts.keys()):
        if before.get(name) != facts.get(name):
            was, now = before.get(name), facts.get(name)
            raise UserError(f"the search to resume has {name} = {was!r}, not {now!r}")


@dataclass
class _Run:
    """One process's part in a study. Each ended trial tells in `end` how it ended."""

    study: optuna.Study
    space: Build
    scorer: Scorer
    proxy: str
    budget: Budget
    image_shape: Shape
    known: dict[Key, dict[str, Any]] = field(default_factory=dict)
    ends: Counter[str] = field(default_factory=Counter)
    best: float | None = None
    seconds: list[float] = field(default_factory=list)

    def go(self, trials: int, on_trial: Callable[[Progress], None]) -> bool:
        """Run what is missing of `trials`; return whether that is the whole space."""
        for trial in self.study.get_trials(deepcopy=False):
            if trial.state.is_finished() and "end" in trial.user_attrs:
                self._remember(trial.params, trial.number, trial.user_attrs["end"])
        self._give_up_running()
        plan = enumerate_params(self.space, trials)
        if plan is not None:
            self._enqueue(plan)
            trials = len(plan)
        in_a_row = 0
        while (done := self._done(plan)) < trials and not self._hopeless(in_a_row):
            on_trial(Progress(done, trials, self.best))
            in_a_row = in_a_row + 1 if "rejected" in self._step() else 0
        on_trial(Progress(done, trials, self.best))
        return plan is not None

    def _done(self, plan: list[Params] | None) -> int:
        return self.ends.total() - (self.ends["rejected"] if plan is None else 0)

    def _hopeless(self, rejected: int) -> bool:
        """Whether there is no sign that another proposal will be scored."""
        failing = self.ends["failed"] >= MAX_FAILED and not self.ends["scores"]
        return rejected >= MAX_REJECTED or failing

    def _give_up_running(self) -> None:
        """Close trials that a killed process left open; they will be proposed anew."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self.study.tell(trial.number, state=TrialState.FAIL)

    def _enqueue(self, plan: Sequence[Params]) -> None:
        waiting = self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        planned = {key(trial.system_attrs["fixed_params"]) for trial in waiting}
        for params in plan:
            if key(params) not in self.known and key(params) not in planned:
                self.study.enqueue_trial(params)

    def _step(self) -> dict[str, Any]:
        """One trial from proposal to result; what it came to."""
        start = time.perf_counter()
        trial = self.study.ask()
        end = self._try(trial)
        trial.set_user_attr("end", end)
        if "score" in end:
            self.study.tell(trial, end["score"])
        else:
            state = TrialState.PRUNED if "rejected" in end else TrialState.FAIL
            self.study.tell(trial, state=state)
        if "scores" in end:
            self.seconds.append(time.perf_counter() - start)
        self._remember(trial.params, trial.number, end)
        return end

    def _try(self, trial: optuna.Trial) -> dict[str, Any]:
        """Build, check and score the proposed candidate, unless its result is known."""
        try:
            first = self.scorer.fresh(lambda: self.space(trial))
            if (before := self.known.get(key(trial.params))) is not None:
                return _reused(before)
            if (excess := self.budget.excess(first, self.image_shape)) is not None:
                return {"rejected": excess, "model_params": count_params(first)}
            scores = self.scorer.score(self._students(first, trial.params), [self.proxy])
        except Exception as error:  # whatever a user's network raises is this candidate's failure
            reason = (str(error).splitlines() or [""])[0]
            return {"failed": f"{type(error).__name__}: {reason}"}
        mean = statistics.fmean(scores[self.proxy])
        return {"score": mean, "scores": scores, "model_params": count_params(first)}

    def _students(self, first: nn.Module, params: Params) -> Iterator[nn.Module]:
        yield first
        for repeat in range(1, len(self.scorer.batches)):
            yield self.scorer.fresh(lambda: network(self.space, params), repeat)

    def _remember(self, params: Params, number: int, end: dict[str, Any]) -> None:
        kinds = ("reused", "scores", "rejected", "failed")
        self.ends[next(kind for kind in kinds if kind in end)] += 1
        self.known.setdefault(key(params), {**end, "trial": number, "params": dict(params)})
        if "score" in end:
            self.best = end["score"] if self.best is None else max(end["score"], self.best)

    def found(self, exhaustive: bool, seconds: float) -> Found:
        """The result of everything in the study."""
        scored = [end for end in self.known.values() if "scores" in end]
        if not scored:
            raise self._nothing()
        ranked = sorted(scored, key=lambda end: (-end["score"], end["trial"]))
        top = tuple(self._student(end) for end in ranked[:TOP])
        return Found(
            best=top[0],
            top=top,
            trials=self.ends.total() - self.ends["rejected"],
            scored=self.ends["scores"],
            reused=self.ends["reused"],
            rejected=self.ends["rejected"],
            failed=self.ends["failed"],
            failures=self._failures(),
            exhaustive=exhaustive,
            seconds=seconds,
            seconds_per_candidate=statistics.median(self.seconds) if self.seconds else 0.0,
        )

    def _student(self, end: Mapping[str, Any]) -> Student:
        macs = count_macs(network(self.space, end["params"]), self.image_shape)
        return Student(end["params"], end["score"], end["model_params"], macs, end["trial"])

    def _failures(self) -> dict[str, int]:
        return dict(Counter(end["failed"] for end in self.known.values() if "failed" in end))

    def _nothing(self) -> Exception:
        """Why no candidate was scored."""
        if failures := self._failures():
            reason = max(failures, key=lambda reason: failures[reason])
            return SearchFailed(f"all {self.ends['failed']} candidates failed, such as: {reason}")
        rejected = [end for end in self.known.values() if "rejected" in end]
        nearest = min(rejected, key=lambda end: end["model_params"])
        return UserError(
            f"no student fits the budget among {len(rejected)} different ones; "
            f"the smallest: {nearest['rejected']}"
        )


def _reused(before: dict[str, Any]) -> dict[str, Any]:
    """The end of a trial whose architecture came to an end before."""
    if "score" in before:
        return {"reused": before["trial"], "score": before["score"]}
    return {name: value for name, value in before.items() if name not in ("trial", "params")}
