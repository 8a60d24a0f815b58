"""Scores are equal to the last bit in any space, in any order and by any number of workers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import optuna
import pytest
import torch
import toyspaces
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from optuna.trial import BaseTrial
from torch import nn

from diswot.costs.budget import Budget
from diswot.executors.inline import Inline
from diswot.executors.processes import process_pool
from diswot.executors.protocol import Executor, TaskResult
from diswot.nas.driver import Driver
from diswot.nas.evaluator import Evaluator, Scoring
from diswot.nas.proposal import Proposer
from diswot.nas.samplers import SAMPLERS
from diswot.nas.trial_result import TrialResult
from diswot.spaces.registry import build_network

PROXIES = ["diswot", "relation", "default", "synflow", "params"]
MOST = 3  # workers


@dataclass(frozen=True)
class Spec:
    """A space, and how its students are scored."""

    widths: tuple[int, ...]
    kernels: tuple[int, ...]
    depth: int
    per_layer: bool
    proxy: str
    seed: int
    limit: int | None


SPECS = some.builds(
    Spec,
    widths=some.sets(some.integers(1, 6), min_size=1, max_size=3).map(tuple),
    kernels=some.sets(some.sampled_from([1, 3, 5]), min_size=1).map(tuple),
    depth=some.integers(1, 3),
    per_layer=some.booleans(),
    proxy=some.sampled_from(PROXIES),
    seed=some.integers(0, 2**32),
    limit=some.none() | some.integers(100, 900),
)


def build(spec: Spec, trial: BaseTrial) -> nn.Module:
    """A stack of convolutions; with choices for each layer, their number depends on the first."""
    layers: list[nn.Module] = []
    width, place = 3, ""
    for i in range(trial.suggest_int("depth", 1, spec.depth)):
        place = str(i) if spec.per_layer else ""
        outputs = trial.suggest_categorical(f"width{place}", spec.widths)
        kernel = trial.suggest_categorical(f"kernel{place}", spec.kernels)
        layers += [nn.Conv2d(width, outputs, kernel, 1, kernel // 2), nn.ReLU()]
        width = outputs
    return toyspaces.student(layers, width)


@functools.cache
def evaluator(spec: Spec) -> Evaluator:
    return Evaluator(
        toyspaces.teacher(),
        partial(build, spec),
        (toyspaces.batch(4),),
        Scoring(spec.proxy, "gaussian", spec.seed),
        Budget(max_params=spec.limit),
        ("score",),
    )


def evaluate(task: tuple[Spec, Any]) -> TrialResult:
    spec, content = task
    return evaluator(spec).evaluate(*content)


def make() -> Callable[[tuple[Spec, Any]], TrialResult]:
    """Make a worker of any space: the space comes with the task."""
    return evaluate


@dataclass
class Part:
    """Some workers of an executor, on one space."""

    executor: Executor
    spec: Spec
    size: int
    _open: set[Hashable] = field(default_factory=set)

    @property
    def room(self) -> int:
        return max(0, min(self.executor.room, self.size - len(self._open)))

    def submit(self, key: Hashable, task: Any) -> None:
        self._open.add(key)
        self.executor.submit(key, (self.spec, task))

    def wait(self, seconds: float | None = None) -> list[TaskResult]:
        results = self.executor.wait(seconds)
        self._open -= {result.key for result in results}
        return results


@pytest.fixture(scope="module")
def pool() -> Iterator[Executor]:
    with process_pool([make], MOST) as executor:
        yield executor


Trials = list[tuple[Any, ...]]


def searched(
    executor: Executor, spec: Spec, trials: int, order: list[dict[str, Any]] | None = None
) -> Trials:
    """Return the trials of a random search, or of a scan in some order, without their times."""
    study = optuna.create_study(sampler=SAMPLERS["random"].make(spec.seed), direction="maximize")
    limits = Budget(max_params=spec.limit)
    driver = Driver(study, Proposer(partial(build, spec)), executor, limits)
    if order is None:
        driver.sample(trials, lambda progress: None)
    else:
        driver.visit(order, lambda progress: None)
    return [(t.number, t.params, t.values, t.state, t.user_attrs) for t in study.trials]


def by_architecture(trials: Trials) -> dict[Any, Any]:
    """Return how each architecture ended in its first trial."""
    ends: dict[Any, Any] = {}
    for _, params, values, state, attributes in trials:
        if "reused" not in attributes["end"]:
            chosen = frozenset(params.items())
            assert chosen not in ends or "scores" not in attributes["end"]
            ends[chosen] = values, state, attributes["end"]
    return ends


PLAIN = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


@settings(max_examples=10, **PLAIN)
@given(spec=SPECS, size=some.integers(1, MOST), data=some.data())
def test_same_to_the_last_bit(pool: Executor, spec: Spec, size: int, data: some.DataObject) -> None:
    """Random searches in this process and in workers are equal, and so is each score by itself.

    A scan evaluates the same architectures in an order that is drawn.
    """
    alone = searched(Inline(lambda task: evaluate((spec, task))), spec, 8)

    beside = searched(Part(pool, spec, size), spec, 8)
    ends = by_architecture(alone)

    assert [trial[:4] for trial in beside] == [trial[:4] for trial in alone]
    assert by_architecture(beside) == ends  # of twins, either may be the one that was scored
    order = data.draw(some.permutations([dict(chosen) for chosen in ends]))
    assert by_architecture(searched(Part(pool, spec, size), spec, 0, order)) == ends
    for chosen, (values, _, end) in ends.items():
        if "scores" in end:
            network = partial(build_network, partial(build, spec), dict(chosen))
            torch.rand(3)  # other draws change nothing
            scorer = evaluator(spec).scorer
            again = scorer.score([scorer.fresh(network)], [spec.proxy])
            assert again == end["scores"] and values == again[spec.proxy]
