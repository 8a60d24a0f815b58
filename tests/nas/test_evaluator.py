"""The evaluation of one candidate, with the costs by hand."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace
from typing import Any

import pytest
import torch
from optuna.trial import BaseTrial
from torch import nn
from toyspaces import Marked, batch, teacher, tiny

from diswot.costs.budget import Budget, Excess
from diswot.costs.latency import LatencyBench, Setting
from diswot.nas.evaluator import Evaluator, Scoring, failure
from diswot.nas.trial_result import TrialResult
from diswot.proxies.candidate import Candidate
from diswot.proxies.registry import PROXIES, ProxyLike
from diswot.proxies.scorer import NotScored
from diswot.spaces.validation import Build

CLASSES, SHAPE = 5, (3, 8, 8)


def sized(trial: BaseTrial) -> nn.Module:
    """One layer of 5 x size weights, and as many multiply-adds."""
    return Marked("", trial.suggest_int("size", 1, 4))


def evaluator(
    space: Build = sized,
    proxy: ProxyLike = "params",
    init: str = "default",
    seed: int = 0,
    **options: Any,
) -> Evaluator:
    given = {
        "batches": (batch(),),
        "scoring": Scoring(proxy, init, seed),
        "budget": Budget(),
        "objectives": ("score",),
    }
    return Evaluator(teacher(), space, **{**given, **options})


# One candidate


def test_score_sizes_and_margins() -> None:
    limits = Budget(max_params=40, max_latency=0.5)
    objectives = ("score", "macs", "latency")

    made = evaluator(budget=limits, objectives=objectives)

    assert made.evaluate({"size": 2}, 0.25) == TrialResult(
        score=10,
        scores={"params": [10]},
        model_params=10,
        costs={"params": 10, "macs": 10, "latency": 0.25},
        margins={"params": 10 / 40 - 1, "latency": 0.25 / 0.5 - 1},
    )


def test_a_candidate_outside_the_budget_is_not_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    def scored(candidate: Any) -> float:
        raise AssertionError("scored")

    monkeypatch.setitem(PROXIES, "never", replace(PROXIES["params"], score=scored))
    made = evaluator(proxy="never", budget=Budget(max_params=12, max_macs=9))

    excess = Excess("params", 15, 12)
    assert made.evaluate({"size": 3}) == TrialResult(rejected=excess, margins={"params": 0.25})


def test_score_is_the_mean_over_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    length = replace(PROXIES["params"], score=lambda candidate: float(len(candidate.batch.labels)))
    monkeypatch.setitem(PROXIES, "length", length)

    result = evaluator(proxy="length", batches=(batch(4), batch(7))).evaluate({"size": 2})

    assert (result.score, result.scores) == (5.5, {"length": [4, 7]})


def test_an_evaluation_is_a_pure_function() -> None:
    """The same from another evaluator, in another order, and sent to another process."""
    one, other = (evaluator(proxy="diswot").make() for _ in range(2))
    results = [one(({"size": size}, None)) for size in (1, 2, 3)]

    assert [other(({"size": size}, None)) for size in (3, 2, 1)] == results[::-1]
    assert pickle.loads(pickle.dumps(results)) == results


@pytest.mark.parametrize(
    ("error", "failed", "kind"),
    [
        (ValueError("no\nnetwork"), "ValueError: no", "error"),
        (SystemExit("enough"), "SystemExit: enough", "error"),
        (MemoryError(), "MemoryError: ", "memory"),
    ],
)
def test_network_that_raises_has_failed(error: BaseException, failed: str, kind: str) -> None:
    def space(trial: BaseTrial) -> nn.Module:
        raise error

    result = evaluator(space).evaluate({"size": 2})

    assert result == TrialResult(failed=failed, kind=kind)


def test_an_interrupt_passes() -> None:
    def space(trial: BaseTrial) -> nn.Module:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluator(space).evaluate({"size": 2})


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), "memory"),
        (NotScored("diswot", math.nan), "not finite"),
        (RuntimeError("sizes differ"), "error"),
    ],
)
def test_failures_by_kind(error: Exception, kind: str) -> None:
    assert failure(error).kind == kind


@pytest.mark.parametrize(
    ("error", "kind"),
    [(torch.OutOfMemoryError("CUDA out of memory"), "memory"), (KeyError("layer"), "error")],
)
def test_a_failure_is_of_the_kind_of_its_cause(error: Exception, kind: str) -> None:
    """A proxy's exception is not a score that is not finite, nor is one of the bench an error."""

    def proxy(candidate: Candidate) -> float:
        raise error

    def build(params: dict[str, object]) -> nn.Module:
        raise error

    result = evaluator(tiny, proxy=proxy).evaluate(
        {"width": 4, "kernel": 1, "depth": 1, "act": "relu"}
    )
    assert result.kind == kind and type(error).__name__ in result.failed
    with pytest.raises(RuntimeError, match="latency: ") as raised:
        LatencyBench(build, Setting((3, 8, 8)))({})
    assert failure(raised.value).kind == kind


def test_evaluator_is_what_its_settings_say() -> None:
    made = evaluator(proxy="relation", objectives=("score", "macs"), seed=3, init="kaiming")

    assert (made.image_shape, made.costs) == (SHAPE, ("macs",))
    assert (made.scorer.init, made.scorer.seed, len(made.scorer.teachers)) == ("kaiming", 3, 1)
    assert made.scorer.teachers[0].logits.shape == (6, CLASSES)
