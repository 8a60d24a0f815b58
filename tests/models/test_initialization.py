from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import toys
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from diswot.errors import UserError
from diswot.models.initialization import INITS, STUDENT, TEACHER, derive_seed, fresh
from diswot.spaces.registry import build_network, create_space


def zoo() -> nn.Module:
    """Everything that an initialisation has to do with; the weights are large enough to measure."""
    return nn.ModuleDict(
        {
            "conv": nn.Conv2d(16, 64, 3),
            "grouped": nn.Conv2d(64, 64, 5, groups=4),
            "conv1d": nn.Conv1d(32, 96, 5, bias=False),
            "linear": nn.Linear(200, 100),
            "bn": nn.BatchNorm2d(8),
            "bare": nn.BatchNorm2d(8, affine=False),
            "gn": nn.GroupNorm(2, 8),
            "ln": nn.LayerNorm(8),
            "unbiased": nn.LayerNorm(8, bias=False),
            "embedding": nn.Embedding(10, 4),
            "attention": nn.MultiheadAttention(8, 2),
        }
    )


def stirred() -> nn.Module:
    """With norms that are not the identity."""
    model = zoo()
    for name in ("bn", "gn", "ln", "unbiased"):
        nn.init.uniform_(model[name].weight)
    return model


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(
        torch.equal(a, b)
        for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize(
    ("init", "deviations"),
    [
        ("gaussian", {"conv": 1, "grouped": 1, "conv1d": 1, "linear": 1}),
        (
            "kaiming",
            {
                "conv": math.sqrt(2 / 144),
                "grouped": math.sqrt(2 / 400),
                "conv1d": math.sqrt(2 / 160),
                "linear": math.sqrt(2 / 200),
            },
        ),
    ],
)
def test_weights_are_normal(init: str, deviations: dict[str, float]) -> None:
    model = fresh(stirred, init, 0)

    for name, deviation in deviations.items():
        weight = model[name].weight / deviation
        assert weight.mean().item() == pytest.approx(0, abs=0.03)
        assert weight.std().item() == pytest.approx(1, abs=0.03)
        assert weight.pow(4).mean().item() == pytest.approx(3, abs=0.4)  # of a normal distribution
        if model[name].bias is not None:
            assert not model[name].bias.any()


@pytest.mark.parametrize("init", ["gaussian", "kaiming"])
def test_norms_are_the_identity_and_the_rest_is_left(init: str) -> None:
    model, own = fresh(stirred, init, 0), fresh(stirred, "default", 0)

    for name in ("bn", "gn", "ln", "unbiased"):
        assert (model[name].weight == 1).all()
    assert not any(model[name].bias.any() for name in ("bn", "gn", "ln"))
    assert model["bare"].weight is None and model["unbiased"].bias is None
    assert torch.equal(model["embedding"].weight, own["embedding"].weight)
    assert torch.equal(model["attention"].in_proj_weight, own["attention"].in_proj_weight)


def test_default_is_the_modules_own() -> None:
    number = derive_seed(3, 1, STUDENT)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(number)
        own = zoo()

    assert same(fresh(zoo, "default", 3, 1), own)
    assert not same(fresh(zoo, "default", 3, 2), own)


@pytest.mark.parametrize("init", INITS)
def test_weights_depend_on_seed_repeat_and_role_alone(init: str) -> None:
    build = toys.LinearHead
    first = fresh(build, init, 1, 2, STUDENT)
    torch.manual_seed(17)
    fresh(build, init, 5)

    assert same(fresh(build, init, 1, 2, STUDENT), first)
    for other in ((2, 2, STUDENT), (1, 3, STUDENT), (1, 2, TEACHER)):
        assert not torch.equal(fresh(build, init, *other).fc.weight, first.fc.weight)


@pytest.mark.parametrize("init", ["gaussian", "kaiming"])
def test_weights_do_not_depend_on_what_a_network_drew_for_itself(init: str) -> None:
    def restless() -> nn.Module:
        torch.rand(7)
        return toys.LinearHead()

    assert same(fresh(restless, init, 1), fresh(toys.LinearHead, init, 1))


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("build", [toys.LinearHead, lambda: 1 / 0])
def test_global_random_state_is_left(build: Callable[[], nn.Module], init: str) -> None:
    torch.manual_seed(5)
    state, enabled = torch.get_rng_state(), torch.is_grad_enabled()

    try:
        model = fresh(build, init, 1)
    except ZeroDivisionError:
        pass
    else:
        assert all(p.requires_grad and p.is_leaf for p in model.parameters())

    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled() == enabled


def test_gaussian_networks_of_s0_can_be_told_apart() -> None:
    """The first convolution has one shape in all: its weights are the same in all."""
    build = create_space("s0", num_classes=5)
    models = [
        fresh(lambda b=b: build_network(build, {"blocks1": b, "blocks2": 1, "blocks3": 1}), i, 0)
        for b in (1, 3)
        for i in ("gaussian", "kaiming")
    ]

    assert torch.equal(models[0].conv1.weight, models[2].conv1.weight)
    assert torch.equal(models[0].conv1.weight * math.sqrt(2 / 27), models[1].conv1.weight)


def test_unknown_initialisation() -> None:
    with pytest.raises(UserError, match="unknown initialisation 'kaimin'; did you mean kaiming"):
        fresh(toys.LinearHead, "kaimin", 0)


@given(st.integers(0, 2**80), st.lists(st.integers(0, 2**40), max_size=3))
def test_derived_seeds(seed: int, place: list[int]) -> None:
    number = derive_seed(seed, *place)

    assert 0 <= number < 2**63
    assert number == derive_seed(seed, *place)
    assert number != derive_seed(seed + 1, *place)
    assert number != derive_seed(seed, *place, 1)


def test_derived_seeds_are_known_numbers() -> None:
    """A score of today must be a score of tomorrow: numpy promises this sequence for ever."""
    assert [derive_seed(0), derive_seed(0, 1), derive_seed(7, 0, 1)] == [
        7896617691693857887,
        2918264622725855778,
        5730826186778930994,
    ]


@pytest.mark.parametrize("seed", [-1, -(2**70)])
def test_seed_below_zero(seed: int) -> None:
    with pytest.raises(UserError, match="a seed must not be below zero"):
        derive_seed(seed)


@pytest.mark.parametrize("init", INITS)
def test_weights_are_drawn_on_the_processor_whatever_the_default_device(init: str) -> None:
    there = torch.device("meta")
    with there:
        drawn = fresh(stirred, init, 3)
        assert torch.get_default_device() == there

    assert all(each.device.type == "cpu" for each in (*drawn.parameters(), *drawn.buffers()))
    assert same(drawn, fresh(stirred, init, 3))
