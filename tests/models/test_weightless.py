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
