from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn

from diswot.models.cifar_resnet import CifarResNet
from diswot.models.weightless import Weightless


def shapes(model: nn.Module) -> dict[str, Any]:
    return {name: (value.shape, value.dtype) for name, value in model.state_dict().items()}


@pytest.mark.parametrize(
    "build",
    [
        lambda: CifarResNet((1, 2, 3), 10),
        lambda: timm.create_model("deit_tiny_patch16_224", num_classes=7, drop_path_rate=0.1),
        lambda: timm.create_model("mobilenetv3_small_100"),
        lambda: nn.LSTM(3, 5),
    ],
)
def test_the_same_network_but_for_its_weights(build: Any) -> None:
    with Weightless():
        sketch = build()
    model = build()

    assert shapes(sketch) == shapes(model) and repr(sketch) == repr(model)
    assert {value.device.type for value in sketch.state_dict().values()} == {"meta"}


def test_what_is_not_on_the_meta_device_is_filled() -> None:
    values = torch.zeros(3)
    with Weightless():
        values.fill_(2)
        nn.init.ones_(weight := torch.zeros(2, device="cpu"))
        steps = torch.linspace(0, 1, 3, device="cpu").mul_(2).tolist()

    assert values.tolist() == [2, 2, 2] and weight.tolist() == [1, 1] and steps == [0, 1, 2]
    assert torch.get_default_device().type == "cpu"


def test_no_random_number_is_drawn() -> None:
    state = torch.get_rng_state()
    with Weightless():
        nn.Linear(1000, 1000)

    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "name", ["mobilenetv3_small_100", "mobilenetv2_100", "deit_tiny_patch16_224"]
)
def test_a_pass_gives_the_shapes(name: str) -> None:
    found: list[list[torch.Size]] = []
    for context in (Weightless(), torch.device("cpu")):
        with context, torch.no_grad():
            model, shapes = timm.create_model(name, num_classes=7), []
            for module in model.modules():
                module.register_forward_hook(lambda *args, to=shapes: to.append(args[2].shape))
            model(torch.zeros(2, 3, 224, 224))
        found.append(shapes)

    assert found[0] == found[1] and len(found[0]) > 50


def test_an_activation_in_place_returns_the_tensor() -> None:
    with Weightless():
        values = torch.zeros(2, 3)
        assert nn.ReLU(inplace=True)(values) is values and nn.ReLU()(values) is not values
