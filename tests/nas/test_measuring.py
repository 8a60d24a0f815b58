"""The measurement of latency before an evaluation, with the costs by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from optuna.trial import BaseTrial
from torch import nn
from toyspaces import Marked

from diswot.costs.budget import Budget, Excess
from diswot.executors.inline import Inline
from diswot.executors.protocol import TaskResult
from diswot.nas.measuring import MeasuredFirst, Measurement
from diswot.nas.trial_result import TrialResult
from diswot.spaces.registry import Params

SHAPE = (3, 8, 8)


def sized(trial: BaseTrial) -> nn.Module:
    """One layer of 5 x size weights, and as many multiply-adds."""
    return Marked("", trial.suggest_int("size", 1, 4))


@pytest.mark.parametrize(
    ("size", "result"),
    [
        (2, 0.5),
        (3, TrialResult(rejected=Excess("params", 15, 12), margins={"params": 0.25})),
        (
            1,
            TrialResult(
                rejected=Excess("seconds of latency", 1.0, 0.8),
                margins={"params": 5 / 12 - 1, "latency": 0.25},
            ),
        ),
    ],
)
def test_latency_is_measured_after_the_cheap_limits(size: int, result: Any) -> None:
    """The smaller the slower: of 3, which has too many parameters, nothing is measured."""
    measured: list[int] = []

    def latency(params: dict[str, Any]) -> float:
        measured.append(params["size"])
        return 1 / params["size"]

    measure = Measurement(sized, Budget(max_params=12, max_latency=0.8), SHAPE, latency)
    found = measure({"size": size})

    assert found == (
        result
        if not isinstance(result, TrialResult)
        else replace(result, margins={n: pytest.approx(v) for n, v in result.margins.items()})
    )
    assert measured == ([] if size == 3 else [size])


def test_latency_that_cannot_be_measured_is_a_failure() -> None:
    def latency(params: dict[str, Any]) -> float:
        raise RuntimeError("no clock")

    found = Measurement(sized, Budget(max_latency=1), SHAPE, latency)({"size": 1})

    assert found == TrialResult(failed="RuntimeError: no clock", kind="error")


class Restarting(Inline):
    """An executor whose worker is gone after each task, and starts while it is waited for."""

    gone = False

    @property
    def room(self) -> int:
        return 0 if self.gone else super().room

    def wait(self, seconds: float | None = None) -> list[TaskResult]:
        ended = super().wait(seconds)
        self.gone = bool(ended)
        return ended


def test_a_process_that_measures_and_died_is_waited_for() -> None:
    """Else there is no room for another candidate, and a search would wait for ever."""
    executor = MeasuredFirst(
        Restarting(lambda params: TrialResult(failed="no clock", kind="killed")),
        Inline(lambda task: TrialResult(1.0)),
    )
    executor.submit(0, ({"size": 1}, None))

    assert [task.key for task in executor.wait()] == [0] and executor.room == 0
    assert executor.wait(0) == [] and executor.room == 1


def test_a_measured_candidate_is_evaluated_with_its_latency() -> None:
    tasks: list[tuple[Params, float | None]] = []

    def evaluate(task: tuple[Params, float | None]) -> TrialResult:
        tasks.append(task)
        return TrialResult(1.0)

    executor = MeasuredFirst(Inline(lambda params: params["size"] / 4), Inline(evaluate))
    executor.submit("a", ({"size": 2}, None))

    assert executor.wait() == [TaskResult("a", TrialResult(1.0))]
    assert tasks == [({"size": 2}, 0.5)] and executor.room == 1
