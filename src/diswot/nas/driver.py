"""The driver of a search: propose a candidate, submit it, record how it ended.

All parameters of a candidate are decided here before it is evaluated, so an executor takes one
message a candidate and gives one back. What is known, or has too many parameters, is not submitted.
"""

from __future__ import annotations

import math
import time
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from diswot.costs.budget import COSTS, Budget, Excess
from diswot.executors.protocol import KILLED, Executor, TaskResult
from diswot.nas.aging_evolution import Digest, digest
from diswot.nas.evaluator import failure
from diswot.nas.history import History
from diswot.nas.peers import Peers
from diswot.nas.proposal import Proposer, ask
from diswot.nas.samplers import listed
from diswot.nas.stopping import Stall
from diswot.nas.trial_result import ATTRIBUTE, TrialResult
from diswot.spaces.registry import Params
from diswot.storage.compat import set_constraints, tell, trial_id
from diswot.storage.journal import NotWritten

TRIES = 3  # runs of a search that may be interrupted at one trial, before the trial is given up
PAUSE = 0.5  # seconds between looks at other processes
POLL = 0.05  # seconds between looks at evaluations while a latency is measured
_INTERRUPTED = "interrupted"  # user attribute of a trial


@dataclass(frozen=True)
class SearchProgress:
    """How far a search is: before the first trial, and after each.

    Attributes:
        done: Candidates within the budget that have ended.
        total: Candidates asked for.
        best: Highest score; None before the first.
        rejected: Proposals outside the budget so far.
        stalled: Proposals in a row that gave no new student within the budget, and none nearer.
    """

    done: int
    total: int
    best: float | None
    rejected: int = 0
    stalled: int = 0


Callback = Callable[[SearchProgress], None]


@dataclass
class _Open:
    """A trial that has not ended."""

    trial: optuna.Trial
    params: Params
    start: float


@dataclass
class Driver:
    """One process's part in a study.

    Attributes:
        study: Holds the trials.
        propose: Decides the parameters of a trial.
        evaluations: Does the evaluations.
        budget: Limits; the one on parameters is checked here.
        objectives: `score`, alone or with names of `COSTS`: the values of the study.
        measurements: Measures latencies before the evaluations, where latency counts.
        peers: Other processes of the study, if there may be some.
        history: What has ended.
        stopped: Why sampling stopped early; empty if it did not.
        seconds: Seconds of each candidate scored in this process.
    """

    study: optuna.Study
    propose: Proposer
    evaluations: Executor
    budget: Budget = field(default_factory=Budget)
    objectives: tuple[str, ...] = ("score",)
    measurements: Executor | None = None
    peers: Peers | None = None
    history: History = field(init=False)
    stopped: str = ""
    seconds: array[float] = field(default_factory=lambda: array("d"))
    _open: dict[int, _Open] = field(default_factory=dict)
    _measured: set[int] = field(default_factory=set)
    _first: dict[Digest, int] = field(default_factory=dict)
    _waiting: dict[int, list[int]] = field(default_factory=dict)
    _interrupted: deque[optuna.Trial] = field(default_factory=deque)
    _stall: Stall = field(default_factory=Stall)
    _listed: bool = False

    def __post_init__(self) -> None:
        self.history = History(self.study)

    # What is there

    def resume(self) -> None:
        """Take in the trials of the study; trials that were interrupted are evaluated first."""
        if self.peers is not None:
            self._look_at_peers()
            return
        for trial in self.study.get_trials(deepcopy=False):
            if self._take_in(trial) is None and trial.state == TrialState.RUNNING:
                self._reopen(trial)

    def _take_in(self, trial: FrozenTrial) -> TrialResult | None:
        """Add a trial that this process did not run to the history."""
        result = TrialResult.from_trial(trial, [n for n in self.objectives if n != "score"])
        if result is not None:
            if trial.state == TrialState.RUNNING:
                self._tell(trial.number, result)
            self.history.add(trial.params, trial.number, result)
        return result

    def _reopen(self, trial: FrozenTrial) -> None:
        """Run an interrupted trial again, unless it was interrupted too often."""
        again = optuna.Trial(self.study, trial_id(trial))
        times = int(trial.user_attrs.get(_INTERRUPTED, 0)) + 1
        again.set_user_attr(_INTERRUPTED, times)
        if times < TRIES:
            self._interrupted.append(again)
        else:
            reason = f"the search ended {times} times while this candidate was evaluated"
            self._record(again, trial.params, TrialResult(failed=reason, kind=KILLED))

    # What is run

    def visit(self, plan: Sequence[Params], callback: Callback) -> None:
        """Evaluate every architecture of a list that is not known."""
        while self._interrupted:  # the order of a list does not depend on them
            self._tell(self._interrupted.popleft().number, None)
        left = deque(params for params in plan if self.history.find(params) is None)
        self.study.sampler = listed(left)
        self._listed = True
        unknown = len(left)

        def more() -> bool:
            while left and self._elsewhere(left[0]):
                left.popleft()
            return bool(left)

        def done() -> bool:
            if not left:
                left.extend(params for params in plan if self.history.find(params) is None)
            return not left

        def report() -> None:
            ended = max(0, unknown - len(left) - len(self._open))
            self._show(len(plan) - unknown + ended, len(plan), callback)

        self._run(more, done, report)

    def sample(self, n_trials: int, callback: Callback) -> None:
        """Evaluate what the sampler proposes, up to a number within the budget.

        Sampling stops earlier for a reason of `Stall`.
        """

        def more() -> bool:
            open_ = len(self._open) + (0 if self.peers is None else len(self.peers.running))
            return not self._hopeless() and self.history.within + open_ < n_trials

        def done() -> bool:
            return self.history.within >= n_trials or self._hopeless()

        def report() -> None:
            self._show(self.history.within, n_trials, callback)

        self._stall = Stall()
        self._run(more, done, report, n_trials)
        if self.history.within < n_trials:
            self.stopped = self._stall.reason(self.history.outcomes)

    def _show(self, done: int, total: int, callback: Callback) -> None:
        rejected = self.history.outcomes["rejected"]
        callback(SearchProgress(done, total, self.history.best, rejected, self._stall.proposals))

    def leave(self) -> None:
        """Give up the open trials of this process, so that no other process waits for them."""
        for number in list(self._open):
            self._drop(number)

    def _hopeless(self) -> bool:
        return bool(self._stall.reason(self.history.outcomes))

    def _run(
        self,
        more: Callable[[], bool],
        done: Callable[[], bool],
        report: Callable[[], None],
        n_trials: float = math.inf,
    ) -> None:
        """Propose, submit and record until there is nothing more to propose."""
        report()
        while True:
            self._look_at_peers()
            while self._room and more():
                before = len(self.history), self.history.outcomes.total()
                self._next(n_trials)
                if before != (len(self.history), self.history.outcomes.total()):
                    report()
            if self._open:
                for result in self._wait():
                    self._ended(result)
                    report()
            elif done():
                return
            elif self.peers is not None:
                time.sleep(PAUSE)
            else:
                self.evaluations.wait(PAUSE)  # workers that start again

    @property
    def _room(self) -> bool:
        measures = self.measurements is None or self.measurements.room > 0
        return self.evaluations.room > 0 and measures

    def _next(self, n_trials: float) -> None:
        """Open one trial, decide its parameters, and submit it unless that is not needed."""
        trial = self._interrupted.popleft() if self._interrupted else ask(self.study)
        number = trial.number
        if self.peers is not None:
            self.peers.claim(trial)
            self._look_at_peers()
            before = sum(n < number for n in (*self._open, *self.peers.running))
            if self.history.within + before >= n_trials:
                self._tell(number, None)
                return
        try:
            proposal = self.propose(trial)
        except (NotWritten, StorageInternalError):
            raise  # the study's own error, as its parameters are stored
        except (Exception, SystemExit) as error:  # an error of the user's space is its failure
            self._record(trial, trial.params, failure(error))
            return
        self._open[number] = _Open(trial, proposal.params, time.monotonic())
        if self.peers is not None:
            self._look_at_peers()
            if self._listed and self._elsewhere(proposal.params, number):
                self._drop(number)
                return
        if (known := self.history.find(proposal.params)) is not None:
            self._close(number, known.result.repeated(known.number))
        elif (first := self._underway(proposal.params, number)) is not None:
            self._waiting.setdefault(first, []).append(number)
        elif (large := self._too_large(proposal.model_params)) is not None:
            self._close(number, large)
        else:
            self._submit(number)

    def _too_large(self, model_params: int) -> TrialResult | None:
        limit = self.budget.limits.get("params")
        if limit is None or model_params <= limit:
            return None
        excess = Excess(COSTS["params"].unit, model_params, limit)
        return TrialResult(rejected=excess, margins={"params": model_params / limit - 1})

    def _underway(self, params: Params, number: int) -> int | None:
        """Return the open trial that evaluates this architecture, if another one does."""
        if self.peers and (other := self.peers.evaluating(params, number)) is not None:
            return other
        first = self._first.setdefault(digest(params), number)
        return None if first == number else first

    def _elsewhere(self, params: Params, before: float = math.inf) -> bool:
        """Return whether an architecture is known, or another process evaluates it."""
        other = None if self.peers is None else self.peers.evaluating(params, before)
        return self.history.find(params) is not None or other is not None

    def _submit(self, number: int) -> None:
        params = self._open[number].params
        if self.measurements is None:
            self.evaluations.submit(number, (params, None))
        else:
            self._measured.add(number)
            self.measurements.submit(number, params)

    def _wait(self) -> list[TaskResult]:
        """Wait for results of evaluations and measurements."""
        pause = None if self.peers is None else PAUSE
        waiting = {number for numbers in self._waiting.values() for number in numbers}
        evaluated = self._open.keys() - self._measured - waiting
        if self.measurements is None or not self._measured:
            return self.evaluations.wait(pause if evaluated else PAUSE)
        if not evaluated:
            return self.measurements.wait(pause)
        return [*self.measurements.wait(POLL), *self.evaluations.wait(POLL)]

    # What has ended

    def _ended(self, task: TaskResult) -> None:
        """Record a result, or evaluate what was measured."""
        number, result = task.key, task.value
        assert isinstance(number, int)
        if number not in self._open:
            return
        if task.failure:
            result = TrialResult(failed=f"{task.failure}: {task.reason}", kind=task.failure)
        if number in self._measured:
            self._measured.remove(number)
            if not isinstance(result, TrialResult):
                self.evaluations.submit(number, (self._open[number].params, float(result)))
                return
        if result.outcome == "scored":
            self.seconds.append(time.monotonic() - self._open[number].start)
        self._close(number, result)

    def _close(self, number: int, result: TrialResult) -> None:
        """Record how a trial ended, and with it those of the same architecture that wait for it."""
        params = self._open[number].params
        self._first.pop(digest(params), None)
        for each in (number, *self._waiting.pop(number, [])):
            if each in self._open:
                trial = self._open.pop(each).trial
                known = None if each == number else self.history.find(params)
                repeated = result if known is None else known.result.repeated(known.number)
                self._record(trial, params, repeated)

    def _record(self, trial: optuna.Trial, params: Params, result: TrialResult) -> None:
        """Write a result to its trial: its sizes, the whole result, and then Optuna's own state."""
        try:
            _constrain(trial, result)
            for name, size in result.sizes().items():
                trial.set_user_attr(name, size)
            trial.set_user_attr(ATTRIBUTE, result.as_attribute())
        except UpdateFinishedTrialError:
            return  # another process gave this trial up
        self._tell(trial.number, result)
        before = len(self.history)
        progress = self.history.add(params, trial.number, result)
        self._stall.add(progress=progress, new=len(self.history) > before)

    def _tell(self, number: int, result: TrialResult | None) -> None:
        """Tell Optuna how a trial ended; None gives it up."""
        values: list[float] | None = None
        state: TrialState | None = TrialState.FAIL
        if result is not None and result.score is not None:
            named = {"score": result.score, **result.costs}
            values, state = [named[name] for name in self.objectives], None
        elif result is not None and result.rejected is not None:
            state = TrialState.PRUNED
        with suppress(UpdateFinishedTrialError):
            self._stall.exhausted |= tell(self.study, number, values, state)

    def _drop(self, number: int) -> None:
        held = self._open.pop(number)
        self._measured.discard(number)
        self._first.pop(digest(held.params), None)
        self._tell(number, None)

    # Other processes

    def _look_at_peers(self) -> None:
        """Take in what other processes did, and give up the trials of those that died."""
        if self.peers is None:
            return
        ended, lost = self.peers.look()
        for trial in (*ended, *lost):
            result = self._take_in(trial)
            if result is None and trial.state == TrialState.RUNNING:
                self._tell(trial.number, None)
            for number in self._waiting.pop(trial.number, []):
                if number not in self._open:
                    continue
                if result is not None:
                    self._close(number, result.repeated(trial.number))
                elif (first := self._underway(self._open[number].params, number)) is not None:
                    self._waiting.setdefault(first, []).append(number)
                else:
                    self._submit(number)


def _constrain(trial: optuna.Trial, result: TrialResult) -> None:
    """Tell Optuna by how much limits are exceeded, as shares of them; zero or less is within."""
    for name, margin in result.margins.items():
        trial.set_constraint(name, margin)
    if result.margins:
        set_constraints(trial, list(result.margins.values()))
