from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from diswot.data.dataset import Batch
from diswot.proxies.scorer import NotScored, score


def batch() -> Batch:
    return Batch(torch.zeros(2, 3, 4, 4), torch.tensor([0, 1]))


def test_size_is_log_params_plus_log_depth() -> None:
    """4 x 3 x 3 x 3 + 4 biases, 2 x 4 of the norm, 4 x 2 + 2: 130 params in 2 layers."""
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 2),
    )
    found = score(None, model, batch(), ["params", "depth", "size"])

    assert (found["params"], found["depth"]) == (130, 2)
    assert found["size"] == pytest.approx(5.5606816310155276, abs=1e-12)  # ln 260


def test_frozen_layers_count() -> None:
    model = nn.Sequential(nn.Linear(3 * 16, 3), nn.Linear(3, 2))
    model[0].requires_grad_(False)

    found = score(None, nn.Sequential(nn.Flatten(), model), batch(), ["size"])
    assert found["size"] == pytest.approx(5.736572297479192)  # 147 + 8 params, 2 layers: ln 310


def test_a_student_without_weights_has_the_lowest_size() -> None:
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())

    with pytest.raises(NotScored) as caught:
        score(None, model, batch(), ["size"])
    assert caught.value.value == -math.inf
