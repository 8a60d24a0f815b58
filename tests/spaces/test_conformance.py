"""What holds of every space."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import cache, partial

import optuna
import pytest
import timm
import torch
from optuna.trial import FixedTrial
from searching import search
from torch import nn
from toyspaces import samples

from diswot.costs.budget import Budget
from diswot.costs.counts import count_params
from diswot.data.dataset import Batch
from diswot.models.initialization import fresh
from diswot.models.registry import create_teacher
from diswot.nas.aging_evolution import AgingEvolutionSampler, digest
from diswot.observation.observe import observe
from diswot.proxies.scorer import NotScored, scorer
from diswot.spaces import registry as spaces
from diswot.spaces.registry import (
    SPACES,
    Params,
    build_network,
    construct,
    create_space,
    enumerate_params,
)
from diswot.spaces.trials import count_choices
from diswot.spaces.validation import Build

CLASSES = 3
PLAIN = [n for n, row in SPACES.items() if not row.argument and row.task == "classification"]
NAMES = [*PLAIN, "timm_zoo:test_*", "subnet:resnet20"]
STAGES = {"autoformer": 1, "vit": 1}
FIXED = (
    "s0",
    "nasbench201",
    "nasbench_macro",
    "transnas_micro",
    "nasbench_mr",
    "pit",
    "cifar_resnet",
    "mobilenet",
    "vit",
)  # no choice under another


def timm_teacher(name: str) -> nn.Module:
    return timm.create_model(name, num_classes=CLASSES)


CIFAR = partial(create_teacher, "resnet20", CLASSES)
TEACHERS: dict[str, Callable[[], nn.Module]] = {
    "s0": CIFAR,
    "cifar_resnet": CIFAR,
    "nasbench201": CIFAR,
    "nasbench101": partial(timm_teacher, "resnet18"),
    "imagenet_resnet": partial(timm_teacher, "resnet18"),
    "mobilenet": partial(timm_teacher, "mobilenetv2_050"),
}  # whose last map is as wide as those of the space


@pytest.fixture(params=NAMES)
def named(request: pytest.FixtureRequest) -> str:
    return request.param


def space(named: str, size: int = 32) -> Build:
    return create_space(named, num_classes=CLASSES, img_size=size)


@cache
def batch(images: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(
        torch.randn(images, 3, 32, 32, generator=generator), torch.arange(images) % CLASSES
    )


@cache
def light(named: str) -> Params:
    """The smallest of some random networks."""
    with torch.device("meta"):
        found = samples(space(named), 6, seed=1)
    return min(found, key=lambda each: count_params(each[1]))[0]


def test_random_networks_build_run_and_round_trip(named: str) -> None:
    with torch.device("meta"):  # shapes are looked at, no weights
        found, images = samples(space(named), 5), torch.zeros(2, 3, 32, 32)
    for number, (params, model) in enumerate(found):
        if number < 2:
            with torch.no_grad():
                assert model(images).shape == (2, CLASSES)
        with torch.device("meta"):
            again = build_network(space(named), dict(reversed(params.items())))
        shapes = {name: value.shape for name, value in model.state_dict().items()}
        assert {name: value.shape for name, value in again.state_dict().items()} == shapes
        assert json.loads(json.dumps(params)) == params


@pytest.mark.parametrize("size", [pytest.param(64, marks=pytest.mark.slow), 224])
def test_sizes_of_images(named: str, size: int) -> None:
    with torch.device("meta"), torch.no_grad():
        ((_, model),) = samples(space(named, size), 1, seed=size)
        assert model(torch.zeros(2, 3, size, size)).shape == (2, CLASSES)


def test_same_choices_same_weights(named: str) -> None:
    build = partial(build_network, space(named), light(named))
    states = [fresh(build, "default", 7).state_dict() for _ in "ab"]

    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0] | states[1])


@pytest.mark.parametrize("name", ["s0", "nasbench101", "mobilenet", *NAMES[-2:]])
def test_passes_the_check_of_a_users_space(name: str) -> None:
    spaces.check(space(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_all_pass_the_check_of_a_users_space(name: str) -> None:
    """The largest network of imagenet_resnet has 0.9 G parameters."""
    spaces.check(space(name))


def test_networks_can_be_observed(named: str) -> None:
    seen = observe(build_network(space(named), light(named)), *batch())

    assert seen.class_gradient.shape == (CLASSES, seen.head_input.shape[1])
    assert len(seen.stages) >= STAGES.get(named, 3) or named.startswith("timm_zoo")


def test_scores(named: str) -> None:
    """The default score is a number for all, `diswot` where the last maps are equally wide."""
    teacher = TEACHERS.get(named, CIFAR)()
    student = build_network(space(named), light(named))
    widths = {observe(each, *batch()).head_input.shape[1] for each in (teacher, student)}
    for proxy, init in (("default", "kaiming"), ("diswot", "gaussian"), ("params", "gaussian")):
        fixed = scorer(teacher, [batch()], init=init)
        model = fixed.fresh(partial(build_network, space(named), light(named)))
        (outcome,) = fixed.outcomes([model], [proxy])[proxy]
        if proxy == "params":
            assert outcome == count_params(model)
        elif proxy == "default" or len(widths) == 1:
            assert isinstance(outcome, float) and math.isfinite(outcome)
        else:
            assert isinstance(outcome, NotScored) and outcome.misfit
            assert named not in TEACHERS


def test_children_of_evolution_are_new_networks(named: str) -> None:
    sampler = AgingEvolutionSampler(population=4, tournament=2, seed=0)
    study = optuna.create_study(sampler=sampler, direction="maximize")
    met = []
    for number in range(10):
        trial = study.ask()
        with torch.device("meta"):
            try:
                model = construct(space(named), trial)
            except Exception:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                study.tell(trial, count_params(model))
        met.append(digest(trial.params))
        assert len(set(met)) == number + 1
    assert any(trial.state.name == "COMPLETE" for trial in study.trials[4:])


@pytest.mark.parametrize("name", FIXED)
def test_size_is_the_product_of_the_choices(name: str) -> None:
    with torch.device("meta"):
        for params, _ in samples(space(name), 3, seed=3):
            trial = FixedTrial(params)
            space(name)(trial)
            sizes = [count_choices(distribution) for distribution in trial.distributions.values()]
            assert math.prod(sizes) == SPACES[name].size


def test_enumeration(named: str) -> None:
    plan = enumerate_params(space(named), 100)

    if named == "s0":
        assert plan is not None and len(plan) == SPACES[named].size
    elif named.startswith("timm_zoo"):
        assert plan == [{"model": name} for name in timm.list_models("test_*")]
    else:
        assert plan is None


def test_budget_is_kept(named: str) -> None:
    with torch.device("meta"):
        sizes = sorted(count_params(model) for _, model in samples(space(named), 6, seed=5))
    limit = sizes[2]
    found = search(
        CIFAR(), space(named), batch(), trials=3, proxy="params", budget=Budget(limit), seed=1
    )

    assert 0 < found.best.model_params <= limit
    assert all(student.model_params <= limit for student in found.top)


def test_row_has_facts(named: str) -> None:
    row = SPACES[named.partition(":")[0]]
    assert row.summary and row.paper
    assert row.size is None if row.example else row.size is not None and row.size > 1


def test_number_of_classes(named: str) -> None:
    with torch.device("meta"):
        ((params, _),) = samples(space(named), 1)
        sizes = [
            count_params(build_network(create_space(named, num_classes=k, img_size=32), params))
            for k in (2, 3, 4)
        ]

    assert sizes[2] - sizes[1] == sizes[1] - sizes[0] > 0
