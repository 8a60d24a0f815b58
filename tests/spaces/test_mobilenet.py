from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn

from diswot.costs.counts import count_macs, count_params
from diswot.spaces import mobilenet
from diswot.spaces.registry import build_network


def chosen(*depths: int, width: float = 1.0, se: bool = False) -> dict[str, Any]:
    params: dict[str, Any] = {"width": width}
    for i, depth in enumerate(depths, 1):
        params |= {f"depth_{i}": depth, f"kernel_{i}": 3, f"expand_{i}": 6, f"se_{i}": se}
    return params


V2 = (2, 3, 4, 3, 3, 1)


def built(params: dict[str, Any], size: int = 224, classes: int = 1000) -> nn.Module:
    return build_network(lambda trial: mobilenet.build(trial, classes, size), params)


@pytest.mark.parametrize("width", [0.5, 1.0])
def test_mobilenet_v2_is_in_the_space(width: float) -> None:
    ours = built(chosen(*V2, width=width))
    theirs = timm.create_model(f"mobilenetv2_{100 * width:03.0f}")
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))

    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_size_as_published() -> None:
    """Table 4 of Sandler et al.: 3.4 M parameters, 300 M multiply-adds."""
    model = built(chosen(*V2))

    assert count_params(model) == 3_504_872
    assert count_macs(model, (3, 224, 224)) == pytest.approx(300e6, rel=0.01)


def test_kernel_expansion_and_gate_of_one_stage() -> None:
    """The first stage's one block: from 16 to 24 channels, 96 or 48 inside."""
    base = chosen(1, 1, 1, 1, 1, 1)
    sizes = [
        count_params(built(base | change))
        for change in ({}, {"kernel_1": 5}, {"expand_1": 3}, {"se_1": True})
    ]

    assert sizes[1] - sizes[0] == (25 - 9) * 96
    assert sizes[0] - sizes[2] == (16 + 9 + 24 + 4) * 48
    assert sizes[3] - sizes[0] == 2 * 96 * 4 + 96 + 4  # 16 / 4 hidden channels


def test_depth_of_one_stage() -> None:
    more = count_params(built(chosen(2, 1, 1, 1, 1, 1)))
    fewer = count_params(built(chosen(1, 1, 1, 1, 1, 1)))

    assert more - fewer == 24 * 144 + 9 * 144 + 144 * 24 + 4 * 144 + 2 * 24


@pytest.mark.parametrize(("size", "grid"), [(224, 7), (96, 3), (64, 4), (32, 4), (8, 4)])
def test_last_grid(size: int, grid: int) -> None:
    with torch.device("meta"):
        model = built(chosen(*V2), size)
        features = model.forward_features(torch.zeros(2, 3, size, size))

    assert features.shape == (2, 1280, grid, grid)
