"""The loop of a search: ask for architectures, have them examined, tell how they ended."""

from __future__ import annotations

import math
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from diswot.executors.pool import Answer, Outcome
from diswot.nas.aging_evolution import Key, key
from diswot.nas.evaluator import RAISED
from diswot.nas.history import Firsts
from diswot.nas.peers import OWNER, Others
from diswot.nas.samplers import Listed
from diswot.nas.trial_result import END, KINDS, End, recorded
from diswot.spaces.registry import Params

MAX_REJECTED = 500  # proposals in a row outside the budget before sampling gives up
PAUSE = 0.5  # seconds between looks at what other processes do
MAX_FAILED = 20  # candidates that fail, none being scored, before sampling gives up

Latency = Callable[[Params], float]


@dataclass(frozen=True)
class Progress:
    """Told at first and after each trial: how many of how many are done, the best score so far."""

    done: int
    total: int
    best: float | None


class Crew(Protocol):
    """Who examines candidates: `examiner.Alone`, or a `workers.Pool`."""

    @property
    def room(self) -> int:
        """How many tasks more would be begun at once."""

    def put(self, key: Hashable, content: Any, *, patience: int = 1) -> None:
        """Take on a task, which may take so many times as long as others."""

    def wait(self, answer: Answer, seconds: float | None = None) -> list[Outcome]:
        """Do tasks until some end, or some seconds have passed."""


@dataclass
class _Open:
    """A trial that was asked and not told."""

    trial: optuna.Trial
    start: float


@dataclass
class Loop:
    """One driver's part in a study.

    How a trial ended is kept, before Optuna is told, in its user attribute `end`, which has
    `scores` (by proxy, a number a repeat), or `reused` (the trial that scored the architecture),
    or `rejected` (the limit it breaks), or `failed` (the reason) and `kind`. With the first two
    go `score` and `costs` (those that are limited or an objective, by their names in
    `budget.COSTS`); with the first three `margins` (by how much limits are exceeded).

    Attributes:
        study: Asked and told.
        crew: Examines candidates.
        objectives: `score`, alone or with names of `budget.COSTS`: the study's values.
        latency: Measures the seconds of one image of an architecture.
        others: The other processes of the study, if there may be some.
        known: How each architecture ended first, with its `params` and `trial`.
        ends: Trials by how they ended.
        reasons: Failed trials by reason.
        kinds: Failed trials by kind.
        best: The highest score.
        seconds: Of each candidate scored in this process.
    """

    study: optuna.Study
    crew: Crew
    objectives: tuple[str, ...] = ("score",)
    latency: Latency | None = None
    others: Others | None = None
    known: Firsts = field(init=False)
    ends: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    best: float | None = None
    seconds: array[float] = field(default_factory=lambda: array("d"))
    _open: dict[int, _Open] = field(default_factory=dict)
    _examined: dict[Key, int] = field(default_factory=dict)
    _alike: dict[int, list[int]] = field(default_factory=dict)
    _within: int = -1
    _row: set[int] = field(default_factory=set)
    _listed: bool = False

    def __post_init__(self) -> None:
        self.known = Firsts(self.study)

    def recall(self) -> None:
        """Take up what the study holds, and close the trials that a killed process left open."""
        if self.others is not None:
            self._see_others()
            return
        for trial in self.study.get_trials(deepcopy=False):
            self._take_up(trial)

    def visit(self, plan: list[Params], on_trial: Callable[[Progress], None]) -> None:
        """Look at every architecture of a list that is not known."""
        left = deque(params for params in plan if key(params) not in self.known)
        self.study.sampler = Listed(left)
        self._listed = True
        unknown = len(left)

        def more() -> bool:
            while left and self._elsewhere(key(left[0])):
                left.popleft()
            return bool(left)

        def done() -> bool:
            if not left:
                left.extend(params for params in plan if key(params) not in self.known)
            return not left

        def progress() -> None:
            ended = unknown - len(left) - len(self._open)
            on_trial(Progress(len(plan) - unknown + max(0, ended), len(plan), self.best))

        progress()
        self._run(more, done, progress)

    def sample(self, trials: int, on_trial: Callable[[Progress], None]) -> None:
        """Look at what the sampler proposes, until `trials` were within the budget or none will."""

        def more() -> bool:
            unsure = self._hopeless(len(self._open))  # one alone would wait how these end
            return not unsure and self.trials() + len(self._open) + self._others_open() < trials

        def done() -> bool:
            return self.trials() >= trials or self._hopeless()

        def progress() -> None:
            on_trial(Progress(self.trials(), trials, self.best))

        self._row.clear()
        progress()
        self._run(more, done, progress, trials)

    def leave(self) -> None:
        """Close the trials of this process that are open, for others not to wait for them."""
        while self._open:
            self._drop(next(iter(self._open)))

    def trials(self) -> int:
        """Number of trials within the budget."""
        return self.ends.total() - self.ends["rejected"]

    def _hopeless(self, more: int = 0) -> bool:
        """Whether sampling gives up, or would if so many more trials ended as the last ones did."""
        failing = self.ends["failed"] + more >= MAX_FAILED and not self.ends["scores"]
        return len(self._row) + more >= MAX_REJECTED or failing

    def _count(self, numbers: set[int], rejected: bool) -> None:
        """Keep the row of rejected trials, by their numbers, in whatever order they end."""
        if not rejected:
            self._within = max(self._within, *numbers)
        self._row = {n for n in self._row | numbers if n > self._within}

    def _run(
        self,
        more: Callable[[], bool],
        done: Callable[[], bool],
        progress: Callable[[], None],
        most: float = math.inf,
    ) -> None:
        """Ask and tell while there is more to ask for, with as many trials open as the crew takes.

        Trials are asked for in the order of their numbers, and no more of them than one alone
        would be.
        """
        while True:
            self._see_others()
            while self.crew.room and more():
                self._ask(most)
            if not self._open and done():
                return
            if self._open or not self.crew.room:  # of workers that start again one hears here too
                waiting = None if self.others is None else PAUSE
                for outcome in self.crew.wait(self._answer, waiting):
                    self._ended(outcome)
                    progress()
            elif self.others is not None:
                time.sleep(PAUSE)

    def _ask(self, most: float) -> None:
        """Open a trial, unless others that came before it are enough."""
        trial = self.study.ask()
        self._open[trial.number] = _Open(trial, time.monotonic())
        if self.others is not None:
            self.others.mine.add(trial.number)
            trial.set_user_attr(OWNER, self.others.name)
            self._see_others()
            before = sum(number < trial.number for number in (*self._open, *self.others.running))
            if self.trials() + before >= most:
                self._drop(trial.number)
                return
        self.crew.put(trial.number, ("examine", trial.number))

    def _drop(self, number: int) -> None:
        """Close a trial that does not count."""
        self._open.pop(number)
        self._tell(number, {})

    def _others_open(self) -> int:
        return 0 if self.others is None else len(self.others.running)

    def _elsewhere(self, chosen: Key, before: float = math.inf) -> bool:
        """Whether an architecture is known, or another process is at it."""
        theirs = None if self.others is None else self.others.examining(chosen, before)
        return chosen in self.known or theirs is not None

    def _see_others(self) -> None:
        """Take up what other processes did, and close the trials of those that died."""
        if self.others is None:
            return
        ended, lost = self.others.look()
        for trial in (*ended, *lost):
            end = self._take_up(trial)
            for number in self._waiting(trial.number):
                if end:
                    self._close(number, _again(self.known[key(trial.params)]))
                else:
                    self.crew.put(number, ("examine", number))

    def _take_up(self, trial: FrozenTrial) -> End:
        """Remember a trial that is not ours, and close it if it is open.

        Raises:
            UserError: No search wrote it so.
        """
        end = recorded(trial, [name for name in self.objectives if name != "score"])
        if trial.state == TrialState.RUNNING:
            self._tell(trial.number, end)
        if end:
            self._remember(trial.params, trial.number, end)
        return end

    def _waiting(self, first: int) -> set[int]:
        """The open trials that were to wait for another, which now has ended."""
        return {number for number in self._alike.pop(first, []) if number in self._open}

    def _answer(self, number: Hashable, question: tuple[Any, ...]) -> Any:
        """What the crew wants to know about a trial."""
        assert isinstance(number, int)
        what, *about = question
        if number not in self._open:  # tried again by a second worker, after it was closed
            return RuntimeError("this trial has ended")
        if what == "suggest":
            return self._suggest(self._open[number].trial, *about)
        if what == "latency":
            assert self.latency is not None
            return self.latency(*about)
        return self._judge(number, *about)

    def _suggest(self, trial: optuna.Trial, name: str, distribution: Any) -> Any:
        """A value for a choice, or what is wrong with it."""
        try:
            return trial._suggest(name, distribution)
        except (ValueError, TypeError) as error:
            return error

    def _judge(self, number: int, params: Params) -> End | None:
        """How this architecture ended before; that another trial has it examined; or nothing."""
        chosen = key(params)
        self._see_others()
        if self._listed and self.others is not None and self._elsewhere(chosen, number):
            return {"dropped": True}
        if chosen in self.known:
            return _again(self.known[chosen])
        if self.others and (theirs := self.others.examining(chosen, number)) is not None:
            return self._wait_for(theirs, number)
        first = self._examined.setdefault(chosen, number)
        return None if first == number else self._wait_for(first, number)

    def _wait_for(self, first: int, number: int) -> End:
        """Close a trial as soon as another has ended, which may be before its worker says so."""
        self._alike.setdefault(first, []).append(number)
        return {"alike": first}

    def _ended(self, outcome: Outcome) -> None:
        """A trial came to an end, and with it those of the same architecture that wait for it.

        The first of these is the one that was scored, so that it does not depend on which of them
        a worker took up first. If another process gave that one up, the next is.
        """
        number = outcome.key
        assert isinstance(number, int)
        end = outcome.result
        if number not in self._open or (end is not None and "alike" in end):
            return  # it was closed with another, or will be
        if end is None:
            end = {"failed": f"{outcome.kind}: {outcome.reason}", "kind": outcome.kind}
        if "dropped" in end:
            self._drop(number)
            return
        first, *others = sorted({number, *self._waiting(number)})
        seconds = time.monotonic() - self._open[number].start
        if "scores" in end:
            self.seconds.append(seconds)
        params = self._close(first, end)
        chosen = key(params)
        for other in others:
            self._close(other, _again(self.known[chosen]) if chosen in self.known else end)
        self._examined.pop(chosen, None)
        self._count({first, *others}, "rejected" in end)

    def _close(self, number: int, end: End) -> Params:
        trial = self._open.pop(number).trial
        params = trial.params
        try:
            _constrain(trial, end.get("margins", {}))
            trial.set_user_attr(END, end)
        except UpdateFinishedTrialError:
            return params  # another process thought that this one was dead
        self._tell(number, end)
        self._remember(params, number, end)
        return params

    def _tell(self, number: int, end: End) -> None:
        values = {"score": end.get("score"), **end.get("costs", {})}
        told = [values[name] for name in self.objectives] if "score" in end else None
        state = TrialState.PRUNED if "rejected" in end else TrialState.FAIL
        with suppress(UpdateFinishedTrialError):
            self.study.tell(number, told, None if "score" in end else state, skip_if_finished=True)

    def _remember(self, params: Params, number: int, end: End) -> None:
        self.ends[next(kind for kind in KINDS if kind in end)] += 1
        self.known.add(key(params), number)
        if "failed" in end:
            self.reasons[end["failed"]] += 1
            self.kinds[end.get("kind", RAISED)] += 1
        if "score" in end:
            self.best = end["score"] if self.best is None else max(end["score"], self.best)


def _again(before: End) -> End:
    """The end of a trial whose architecture came to an end before."""
    if "score" in before:
        kept = ("score", "costs", "margins")
        return {
            "reused": before["trial"],
            **{name: value for name, value in before.items() if name in kept},
        }
    return {name: value for name, value in before.items() if name not in ("trial", "params")}


def _constrain(trial: optuna.Trial, margins: Mapping[str, float]) -> None:
    """Tell Optuna by how much limits are exceeded, as shares of them; zero or less is within.

    Optuna keeps a constraint under its name since version 5; its dashboard reads the list, under
    which versions before kept them.
    """
    for name, margin in margins.items():
        trial.set_constraint(name, margin)
    if margins:
        trial.storage.set_trial_system_attr(trial._trial_id, "constraints", list(margins.values()))
