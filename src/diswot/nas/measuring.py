"""The step before an evaluation where latency counts: the candidate is built and timed.

Other candidates are evaluated meanwhile, so a measurement makes no worker wait.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import partial

from diswot.costs.budget import Budget, Costs
from diswot.costs.counts import Shape
from diswot.executors.protocol import Executor, TaskResult
from diswot.nas.evaluator import failure
from diswot.nas.trial_result import TrialResult
from diswot.spaces.registry import Params, build_network
from diswot.spaces.validation import Build

Latency = Callable[[Params], float]  # seconds of one image, given the parameters

POLL = 0.05  # seconds between looks at the evaluations while a latency is measured


@dataclass(frozen=True)
class Measurement:
    """Task that checks a candidate's limits and then measures its latency."""

    space: Build
    budget: Budget
    image_shape: Shape
    latency: Latency

    def __call__(self, params: Params) -> TrialResult | float:
        """Return the seconds of one image, or how the candidate ended: outside, or failed."""
        try:
            model = build_network(self.space, params)
            costs = Costs(model, self.image_shape, partial(self.latency, params))
            excess, margins = self.budget.check(costs)
            if excess is not None:
                return TrialResult(rejected=excess, margins=margins)
            return costs.latency
        except (Exception, SystemExit) as error:  # an error of a user's network is its failure
            return failure(error)


@dataclass
class MeasuredFirst:
    """Executor that has each candidate measured, and then evaluated with its latency.

    Attributes:
        measurements: Executor of `Measurement`.
        evaluations: Executor of what evaluates candidates.
    """

    measurements: Executor
    evaluations: Executor
    _measured: dict[Hashable, Params] = field(default_factory=dict)

    @property
    def room(self) -> int:
        """Number of candidates that would be measured at once, and evaluated at once."""
        return min(self.measurements.room, self.evaluations.room)

    def submit(self, key: Hashable, task: tuple[Params, None]) -> None:
        """Have a candidate measured."""
        params, _ = task
        self._measured[key] = params
        self.measurements.submit(key, params)

    def wait(self, seconds: float | None = None) -> list[TaskResult]:
        """Wait until candidates end; those that were measured are evaluated."""
        ended = []
        for task in self.measurements.wait(POLL if self._measured else 0):
            params = self._measured.pop(task.key)
            if task.failure or isinstance(task.value, TrialResult):
                ended.append(task)
            else:
                self.evaluations.submit(task.key, (params, float(task.value)))
        return ended + self.evaluations.wait(0 if ended or self._measured else seconds)
