"""The driver of a search: the path of a candidate from its proposal to its record.

A candidate is a trial of an Optuna study. The driver takes it through these steps:

1. `ask` opens the trial, and the sampler draws values.
2. `propose` runs the space without weights, which decides all parameters.
3. `_begin` submits the parameters to an executor, unless their architecture is known or under way.
4. The executor evaluates them, here or elsewhere, and returns a `TrialResult`.
5. `_record` writes the result to the trial, and adds it to the history.

All parameters are decided before the evaluation, so an executor takes one message a candidate and
gives one back.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from diswot.costs.budget import COSTS, Budget, Excess
from diswot.executors.protocol import KILLED, Executor, TaskResult
from diswot.nas.evaluator import failure
from diswot.nas.history import History
from diswot.nas.peers import Peers
from diswot.nas.progress import Callback, SearchProgress
from diswot.nas.proposal import Proposer, ask
from diswot.nas.samplers import listed
from diswot.nas.stopping import Stall
from diswot.nas.trial_result import TrialResult
from diswot.spaces.registry import Params
from diswot.storage.compat import tell, trial_id
from diswot.storage.journal import NotWritten

TRIES = 3  # runs of a search that may be interrupted at one trial, before the trial is given up
PAUSE = 0.5  # seconds between looks at other processes
_INTERRUPTED = "interrupted"  # user attribute of a trial


@dataclass
class Driver:
    """Driver of a search: proposes, submits and records the candidates of one process.

    Attributes:
        study: Holds the trials.
        propose: Decides the parameters of a trial.
        executor: Evaluates candidates.
        budget: Limits; the one on parameters is checked here.
        objectives: `score`, alone or with names of `COSTS`: the values of the study.
        peers: Other processes of the study, if there may be some.
        history: What has ended.
        stopped: Why sampling stopped early; empty if it did not.
    """

    study: optuna.Study
    propose: Proposer
    executor: Executor
    budget: Budget = field(default_factory=Budget)
    objectives: tuple[str, ...] = ("score",)
    peers: Peers | None = None
    history: History = field(init=False)
    stopped: str = ""
    _open: dict[int, optuna.Trial] = field(default_factory=dict)  # trials that have not ended
    _waiting: dict[int, int] = field(default_factory=dict)  # of these, for the end of which trial
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
            self._record(again, TrialResult(failed=reason, kind=KILLED))

    # What is run

    def visit(self, plan: Sequence[Params], callback: Callback) -> None:
        """Evaluate every architecture of a list that is not known."""
        while self._interrupted:  # the order of a list does not depend on them
            self._tell(self._interrupted.popleft().number, None)
        left = deque(params for params in plan if params not in self.history)
        self.study.sampler, self._listed = listed(left), True

        def more() -> bool:
            while left and self._taken(left[0]):
                left.popleft()
            return bool(left)

        def done() -> bool:
            if not left:  # but what a process left that has died
                left.extend(params for params in plan if params not in self.history)
            return not left

        def report() -> None:
            self._show(len(plan) - len(left) - len(self._open), len(plan), callback)

        self._run(more, done, report)

    def sample(self, n_trials: int, callback: Callback) -> None:
        """Evaluate what the sampler proposes, up to a number within the budget.

        Sampling stops earlier for a reason of `Stall`.
        """

        def more() -> bool:
            open_ = len(self._open) + len(self._elsewhere)
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
        for number in self._open:
            self._tell(number, None)

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
            while self.executor.room and more():
                before = self.history.outcomes.total()
                self._next(n_trials)
                if before != self.history.outcomes.total():
                    report()
            if self._open:
                for task in self.executor.wait(None if self.peers is None else PAUSE):
                    self._ended(task)
                    report()
            elif done():
                return
            else:
                self.executor.wait(PAUSE)  # for other processes, or workers that start again

    def _next(self, n_trials: float) -> None:
        """Open one trial, decide its parameters, and begin its evaluation if that is needed."""
        trial = self._interrupted.popleft() if self._interrupted else ask(self.study)
        number = trial.number
        if self.peers is not None:
            try:
                self.peers.claim(trial)
            except UpdateFinishedTrialError:
                return  # another process gave this trial up
            self._look_at_peers()
            before = sum(n < number for n in (*self._open, *self._elsewhere))
            if self.history.within + before >= n_trials:
                self._tell(number, None)
                return
        try:
            model_params = self.propose(trial)
        except (NotWritten, StorageInternalError):
            raise  # the study's own error, as its parameters are stored
        except (Exception, SystemExit) as error:  # an error of the user's space is its failure
            self._record(trial, failure(error))
            return
        self._look_at_peers()
        limit = self.budget.limits.get("params")
        if self._listed and self._taken(trial.params, number):
            self._tell(number, None)
        elif limit is not None and model_params > limit:
            excess = Excess(COSTS["params"].unit, model_params, limit)
            margins = {"params": model_params / limit - 1}
            self._record(trial, TrialResult(rejected=excess, margins=margins))
        else:
            self._open[number] = trial
            self._begin(number)

    def _begin(self, number: int) -> None:
        """Submit an open trial, unless its architecture is known or an earlier trial has it."""
        params = self._open[number].params
        self._waiting.pop(number, None)
        if (known := self.history.repeat(params)) is not None:
            self._close(number, known)
        elif (first := self._underway(params, number)) is not None:
            self._waiting[number] = first
        else:
            self.executor.submit(number, (params, None))

    def _underway(self, params: Params, before: float = math.inf) -> int | None:
        """Return the first open trial, below a number, of an architecture in any process."""
        open_ = {**self._elsewhere, **self._open}
        return min((n for n, t in open_.items() if n < before and t.params == params), default=None)

    def _taken(self, params: Params, before: float = math.inf) -> bool:
        """Return whether an architecture is known or under way."""
        return params in self.history or self._underway(params, before) is not None

    # What has ended

    def _ended(self, task: TaskResult) -> None:
        """Record what an executor returned, or that the worker died or took too long."""
        assert isinstance(task.key, int)
        result = task.value
        if task.failure:
            result = TrialResult(failed=f"{task.failure}: {task.reason}", kind=task.failure)
        self._close(task.key, result)

    def _close(self, number: int, result: TrialResult) -> None:
        """Record how a trial ended, and with it those of the same architecture that wait for it."""
        trial = self._open.pop(number)
        self._record(trial, result)
        for other in self._waiters(number):
            del self._waiting[other]
            self._close(other, self.history.repeat(trial.params) or result)

    def _waiters(self, number: int) -> list[int]:
        return [other for other, first in self._waiting.items() if first == number]

    def _record(self, trial: optuna.Trial, result: TrialResult) -> None:
        """Write a result to its trial, tell Optuna, and add it to the history."""
        try:
            result.write(trial)
        except UpdateFinishedTrialError:
            return  # another process gave this trial up
        self._tell(trial.number, result)
        before = len(self.history)
        progress = self.history.add(trial.params, trial.number, result)
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

    # Other processes

    @property
    def _elsewhere(self) -> Mapping[int, FrozenTrial]:
        """Open trials of other processes, by number."""
        return {} if self.peers is None else self.peers.running

    def _look_at_peers(self) -> None:
        """Take in what other processes did, and give up the trials of those that died."""
        if self.peers is None:
            return
        ended, lost = self.peers.look()
        for trial in (*ended, *lost):
            if self._take_in(trial) is None and trial.state == TrialState.RUNNING:
                self._tell(trial.number, None)
            for number in self._waiters(trial.number):
                self._begin(number)
