from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from diswot.data.dataset import Batch
from diswot.proxies.candidate import Candidate
from diswot.proxies.registry import PROXIES
from diswot.proxies.scorer import score
from diswot.proxies.stage_entropy import stage_entropy

FACTORS = (2.0, 3.0, 5.0)


class Scaling(nn.Sequential):
    """A norm, a convolution that multiplies each channel by a number, and pooling by 2."""

    def __init__(self, factor: float) -> None:
        convolution = nn.Conv2d(3, 3, 1, bias=False)
        with torch.no_grad():
            convolution.weight.copy_(factor * torch.eye(3)[:, :, None, None])
        super().__init__(nn.BatchNorm2d(3), convolution, nn.AvgPool2d(2))


class Stages(nn.Module):
    def __init__(self, factors: tuple[float, ...] = FACTORS, *, dense: bool = False) -> None:
        super().__init__()
        self.encoder = nn.Sequential(*map(Scaling, factors))
        self.dense = dense
        self.head = nn.Conv2d(3, 5, 1) if dense else nn.Linear(3, 5)

    def forward(self, images: Tensor) -> Tensor:
        features = self.encoder(images)
        return self.head(features if self.dense else features.mean((2, 3)))


def given(model: nn.Module, *, dense: bool = False, seed: int = 3) -> Candidate:
    labels = torch.zeros((4, 32, 32) if dense else (4,), dtype=torch.int64)
    return Candidate(model, None, Batch(torch.zeros(4, 3, 32, 32), labels), seed)


def by_hand(factors: tuple[float, ...], seed: int = 3) -> float:
    random = torch.Generator().manual_seed(seed)
    noise = torch.randn(4, 3, 32, 32, generator=random, dtype=torch.float64)
    logs = []
    for place in range(len(factors)):
        pooled = avg_pool2d(noise, 2 ** (place + 1))
        deviation = math.prod(factors[: place + 1]) * float(pooled.var(correction=0)) ** 0.5
        logs.append(math.log(deviation))
    return logs[-3] + logs[-2] + 6 * logs[-1]


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("factors", [FACTORS, (7.0, *FACTORS)])
def test_weighted_logarithms_of_the_deviations(dense: bool, factors: tuple[float, ...]) -> None:
    found = stage_entropy(given(Stages(factors, dense=dense), dense=dense))
    assert found == pytest.approx(by_hand(factors))


def test_stages_that_the_network_names() -> None:
    model = Stages((7.0, *FACTORS))
    model.diswot_layers = {"stages": ["encoder.0", "encoder.1", "encoder.2"]}
    assert stage_entropy(given(model)) == pytest.approx(by_hand((7.0, *FACTORS[:2])))


def test_an_activation_inside_a_normalisation_stays() -> None:
    from timm.layers import BatchNormAct2d

    inside, apart = Stages(), Stages()
    for one, other in zip(inside.encoder, apart.encoder, strict=True):
        one[0] = BatchNormAct2d(3)
        other[0] = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU())
    assert (
        stage_entropy(given(inside)) == stage_entropy(given(apart)) < stage_entropy(given(Stages()))
    )


def test_a_map_of_zeros_is_lowest() -> None:
    assert stage_entropy(given(Stages((2.0, 3.0, 0.0)))) == -math.inf


def test_fewer_stages_than_weights() -> None:
    """One block: its convolution ends a stage of full size, and its pooling another."""
    random = torch.Generator().manual_seed(3)
    noise = torch.randn(4, 3, 32, 32, generator=random, dtype=torch.float64)
    first, last = 2 * noise, 2 * avg_pool2d(noise, 2)
    expected = sum(w * math.log(float(m.std(correction=0))) for w, m in ((1, first), (6, last)))
    assert stage_entropy(given(Stages((2.0,)))) == pytest.approx(expected)


def test_it_needs_no_teacher_and_leaves_the_network_alone() -> None:
    model = Stages()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = torch.randn(4, 3, 32, 32)
    found = score(None, model, Batch(images, torch.zeros(4, dtype=torch.int64)), "stage_entropy")

    assert math.isfinite(found["stage_entropy"]) and not PROXIES["stage_entropy"].needs_teacher
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert next(model.parameters()).dtype == torch.float32


def test_deep_networks_do_not_overflow() -> None:
    """60 convolutions of 576 inputs with weights N(0, 1): float32 overflows after 28."""
    strides = [2 if place in (20, 40) else 1 for place in range(60)]
    layers = [nn.Conv2d(64, 64, 3, stride, padding=1) for stride in strides]
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 5)
    model = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), *layers, *head)
    for layer in layers:
        nn.init.normal_(layer.weight)
    assert math.isfinite(stage_entropy(given(model)))
