"""Networks that need care before they are measured."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn

import diswot
from diswot.errors import UserError
from diswot.models.initialization import fresh
from diswot.models.supported import refuse_unsupported, usable


def plain() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    )


def lazy() -> nn.Module:
    return nn.Sequential(
        nn.LazyConv2d(4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(5)
    )


def script() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(plain())


def part_script() -> nn.Module:
    return nn.Sequential(script(), nn.Linear(5, 5))


def meta() -> nn.Module:
    with torch.device("meta"):
        return plain()


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lazy, "lazy layers"),
        (script, "TorchScript"),
        (part_script, "TorchScript"),
        (meta, "no weights: it was built on the meta device"),
    ],
)
def test_what_cannot_be_measured_is_named(build: Callable[[], nn.Module], said: str) -> None:
    with pytest.raises(UserError, match=said):
        usable(build())

    images = diswot.create_dataset("noise", num_classes=5, img_size=8).batch(4)
    with pytest.raises(UserError, match=said):
        diswot.score(None, build(), images, "params")


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_become_float32(kind: torch.dtype) -> None:
    first = plain().to(kind)
    expected = [weight.float().clone() for weight in first.parameters()]

    model = fresh(lambda: first, "default", 0)

    assert all(map(torch.equal, model.parameters(), expected))
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    name = str(kind).removeprefix("torch.")
    with pytest.raises(UserError, match=rf"weights of {name}; make them float32: model.float\(\)"):
        refuse_unsupported(plain().to(kind), float32=True)


def test_a_lazy_network_that_ran_is_one_as_any_other() -> None:
    model = lazy()
    model(torch.zeros(2, 3, 8, 8))

    assert usable(model) is model
    assert usable("no network") == "no network"


def test_the_meta_device_is_for_deciding_parameters() -> None:
    model = meta()

    assert usable(model, meta=True) is model
