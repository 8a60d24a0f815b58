"""The step before an evaluation where latency counts: the candidate is built and timed.

Other candidates are evaluated meanwhile, so a measurement makes no worker wait.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from diswot.costs.budget import Budget, Costs
from diswot.costs.counts import Shape
from diswot.costs.latency import LatencyBench, Setting
from diswot.errors import SearchFailed
from diswot.executors.inline import Inline
from diswot.executors.processes import process_pool
from diswot.executors.protocol import Executor, TaskResult
from diswot.nas.evaluator import EvaluatorSettings, Task, failure
from diswot.nas.trial_result import TrialResult
from diswot.spaces.registry import Params, build_network
from diswot.spaces.validation import Build

Latency = Callable[[Params], float]  # seconds of one image, given the parameters

TIMEOUTS = 4  # times the timeout of a candidate that one measurement may take
POLL = 0.05  # seconds between looks at the evaluations while a latency is measured


@dataclass(frozen=True)
class Measurement:
    """What measures a candidate: cheap limits first, then the clock."""

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
        except SearchFailed:
            raise
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

    def submit(self, key: Hashable, task: Task) -> None:
        """Have a candidate measured."""
        params, _ = task
        self._measured[key] = params
        self.measurements.submit(key, params)

    def wait(self, seconds: float | None = None) -> list[TaskResult]:
        """Wait until candidates end; those that were measured are evaluated."""
        if not self._measured:
            return self.evaluations.wait(seconds)
        ended = []
        for task in self.measurements.wait(POLL):
            params = self._measured.pop(task.key)
            if task.failure or isinstance(task.value, TrialResult):
                ended.append(task)
            else:
                self.evaluations.submit(task.key, (params, float(task.value)))
        return ended + self.evaluations.wait(0)


@contextmanager
def measured_first(
    evaluations: Executor,
    settings: EvaluatorSettings,
    latency: Setting | Latency,
    timeout: float | None,
    cache: Path | None,
) -> Iterator[Executor]:
    """Start what measures latency: a process of its own, or a user's function in this process.

    Args:
        evaluations: Executor of what evaluates candidates.
        settings: Settings of the evaluator.
        latency: How latency is measured, or a function of the parameters that returns seconds.
        timeout: Seconds that one evaluation may take; a measurement may take more.
        cache: File of the latencies that were measured; None for none.
    """
    measurement = partial(Measurement, settings.space, settings.budget, settings.image_shape)
    if not isinstance(latency, Setting):
        yield MeasuredFirst(Inline(measurement(latency)), evaluations)
        return
    bench = LatencyBench(partial(build_network, settings.space), latency, cache)
    make = partial(measurement, partial(_upper_end, bench))
    limit = None if timeout is None else TIMEOUTS * timeout
    with process_pool([make], 1, threads=latency.threads, timeout=limit) as measurements:
        yield MeasuredFirst(measurements, evaluations)


def _upper_end(bench: LatencyBench, params: Params) -> float:
    return bench(params).high
