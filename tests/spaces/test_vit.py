from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn

from diswot.costs.counts import count_params
from diswot.spaces import vit
from diswot.spaces.registry import build_network

TINY: dict[str, Any] = {"depth": 12, "heads": 3, "head_width": 64, "mlp_ratio": 4.0}


def built(params: dict[str, Any] = TINY, classes: int = 1000, size: int = 224) -> nn.Module:
    return build_network(lambda trial: vit.build(trial, classes, size), params)


@pytest.mark.parametrize(
    ("name", "heads"), [("deit_tiny_patch16_224", 3), ("vit_small_patch16_224", 6)]
)
def test_published_networks_are_in_the_space(name: str, heads: int) -> None:
    ours, theirs = built(TINY | {"heads": heads}), timm.create_model(name)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))

    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_size_by_hand() -> None:
    """Of 2 heads of 32 channels, at 32 pixels: 64 patches of 4 x 4."""
    d, hidden = 64, 128
    layer = (d * 3 * d + 3 * d) + (d * d + d) + (d * hidden + hidden) + (hidden * d + d) + 4 * d
    ends = (3 * 16 * d + d) + d + 65 * d + 2 * d + (d * 10 + 10)
    params = {"depth": 5, "heads": 2, "head_width": 32, "mlp_ratio": 2.0}

    assert count_params(built(params, 10, 32)) == 5 * layer + ends
