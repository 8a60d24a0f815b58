"""Scores are the same to the last bit, whatever the space, the order and the number of workers."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import optuna
import pytest
import torch
import toyspaces
from diswot.executors.packed import Packed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from optuna.trial import BaseTrial
from torch import nn

from diswot.costs.budget import Budget
from diswot.executors.pool import Answer, Outcome, Pool
from diswot.executors.processes import Pipes
from diswot.nas.aging_evolution import key
from diswot.nas.driver import Loop
from diswot.nas.evaluator import Alone, Examiner, Setup, work
from diswot.nas.samplers import SAMPLERS
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


class Chained(nn.Sequential):
    """Says what its students share."""

    def chain(self) -> list[nn.Module]:
        return list(self)


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
    return Chained(*toyspaces.student(layers, width))


@functools.cache
def examiner(spec: Spec) -> Examiner:
    setup = Setup(
        toyspaces.teacher(),
        partial(build, spec),
        (toyspaces.batch(4),),
        spec.proxy,
        Budget(max_params=spec.limit),
        ("score",),
        "gaussian",
        spec.seed,
        False,
    )
    return setup.examiner()


def nothing() -> None:
    """What a worker of many spaces makes at its start."""


def work_on(held: None, task: tuple[Spec, Any], ask: Any) -> Any:
    """As `examiner.work`; the space comes with the task."""
    spec, content = task
    return work(examiner(spec), content, ask)


@dataclass
class Some:
    """So many workers of a pool, on one space."""

    pool: Pool
    spec: Spec
    size: int

    @property
    def room(self) -> int:
        return max(0, min(self.pool.room, self.size - self.pool.busy))

    def put(self, key: Hashable, content: Any, *, patience: int = 1) -> None:
        self.pool.put(key, (self.spec, content), patience=patience)

    def wait(self, answer: Answer, seconds: float | None = None) -> list[Outcome]:
        return self.pool.wait(answer, seconds)


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(Pipes([Packed.pack(nothing, work_on)]), MOST) as crew:
        yield crew


Told = list[tuple[Any, ...]]


def told(crew: Any, spec: Spec, trials: int, order: list[dict[str, Any]] | None = None) -> Told:
    """Everything but the times of each trial of a random search, or of a scan in some order."""
    study = optuna.create_study(sampler=SAMPLERS["random"](spec.seed), direction="maximize")
    loop = Loop(study, crew)
    if order is None:
        loop.sample(trials, lambda progress: None)
    else:
        loop.visit(order, lambda progress: None)
    return [(t.number, t.params, t.values, t.state, t.user_attrs) for t in study.trials]


def by_architecture(trials: Told) -> dict[Any, Any]:
    """How each ended first, without where its score came from."""
    ends: dict[Any, Any] = {}
    for _, params, values, state, attributes in trials:
        if "reused" not in attributes["end"]:
            assert key(params) not in ends or "scores" not in attributes["end"]
            ends[key(params)] = values, state, attributes["end"]
    return ends


PLAIN = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


@settings(max_examples=10, **PLAIN)
@given(spec=SPECS, size=some.integers(1, MOST), data=some.data())
def test_same_to_the_last_bit(pool: Pool, spec: Spec, size: int, data: some.DataObject) -> None:
    """A search alone and one of some workers are equal; so is each score, alone and in any order.

    Both searches are random ones; a scan looks at the same architectures in an order that is drawn.
    """
    alone = told(Alone(Examiner(**vars(examiner(spec)))), spec, 8)

    beside = told(Some(pool, spec, size), spec, 8)
    ends = by_architecture(alone)

    assert [trial[:4] for trial in beside] == [trial[:4] for trial in alone]
    assert by_architecture(beside) == ends  # of twins, either may be the one that was scored
    order = data.draw(some.permutations([dict(chosen) for chosen in ends]))
    assert by_architecture(told(Some(pool, spec, size), spec, 0, order)) == ends
    for chosen, (values, _, end) in ends.items():
        if "scores" in end:
            network = partial(build_network, partial(build, spec), dict(chosen))
            torch.rand(3)  # whatever else draws
            again = examiner(spec).scorer.score(
                examiner(spec).scorer.students(network), [spec.proxy]
            )
            assert again == end["scores"] and values == again[spec.proxy]
