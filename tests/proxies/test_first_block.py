from __future__ import annotations

import copy
import math
from dataclasses import astuple
from statistics import fmean

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from diswot.models.initialization import INITS, derive_seed
from diswot.models.registry import create_teacher
from diswot.observation.modes import measuring
from diswot.proxies.early_blocks import DRAWS, IMAGES, channel_correlations, early_blocks, roughness
from diswot.proxies.eigen import eigenvalues, spectral_entropy
from diswot.spaces.cifar_resnet import CifarResNet

BATCH = torch.randn(10, 3, 16, 16, generator=torch.Generator().manual_seed(0))


# Early blocks


def first_maps(model: CifarResNet, images: Tensor) -> list[Tensor]:
    features = torch.relu(model.bn1(model.conv1(images)))
    maps = []
    for block in model.layer1:
        features = block(features)
        maps.append(features)
    return maps


def test_early_blocks_are_the_mean_over_draws_of_the_first_stage() -> None:
    """Against a copy that is initialised whole and run by hand, draw by draw."""
    model = CifarResNet((3, 2, 1))
    found = early_blocks(model, BATCH, seed=7)
    rough, entropies = [], list[list[float]]()
    for draw in range(DRAWS):
        drawn = copy.deepcopy(model)
        stem = nn.Sequential(drawn.conv1, drawn.layer1)  # in the order in which they run
        images = BATCH[[(draw * IMAGES + place) % 10 for place in range(IMAGES)]]
        with torch.no_grad(), measuring(drawn):
            INITS["kaiming"](stem, torch.Generator().manual_seed(derive_seed(7, draw)))
            maps = first_maps(drawn, images)
            rough.append(roughness(maps[0]))
            entropies.append([spectral_entropy(eigenvalues(channel_correlations(m))) for m in maps])
    first, _, last = (fmean(each) for each in zip(*entropies, strict=True))
    assert found is not None
    assert astuple(found) == pytest.approx((fmean(rough), first, last))
    assert first != last


def test_networks_that_begin_alike_have_the_same_early_blocks() -> None:
    """Whatever their own weights are, and whatever follows."""
    short = early_blocks(CifarResNet((1, 1, 1)), BATCH, 0)
    deep = early_blocks(create_teacher("resnet56", 10), BATCH, 0)
    assert short is not None and deep is not None
    assert (short.roughness, short.entropy) == (deep.roughness, deep.entropy)
    assert short.last_entropy == short.entropy != deep.last_entropy
    assert early_blocks(CifarResNet((1, 1, 1)), BATCH, 1) != short


def test_it_goes_no_further_than_it_must() -> None:
    """The first draw sees where the shape changes; the others stop before."""
    model, ran = CifarResNet((2, 2, 2)), []
    for name in ("layer1", "layer2", "layer3"):
        for block in getattr(model, name):
            block.register_forward_hook(lambda m, i, o, name=name: ran.append(name))
    early_blocks(model, BATCH, 0)
    assert [ran.count(name) for name in ("layer1", "layer2", "layer3")] == [2 * DRAWS, 1, 0]


def test_it_looks_at_five_blocks_at_most() -> None:
    model, ran = CifarResNet((7, 1, 1)), []
    for block in model.layer1:
        block.register_forward_hook(lambda m, i, o: ran.append(m))
    found = early_blocks(model, BATCH, 0)
    assert ran == [*model.layer1[:5]] * DRAWS
    assert found == early_blocks(CifarResNet((5, 1, 1)), BATCH, 0)


class Broken(nn.Module):
    """Fails as it runs, after its first convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        raise ArithmeticError(f"{self.one(images).sum()}")


@pytest.mark.parametrize("fails", [False, True])
def test_the_network_keeps_its_weights_and_no_hook(fails: bool) -> None:
    model = Broken() if fails else create_teacher("resnet20", 10)
    norm = next((m for m in model.modules() if isinstance(m, nn.BatchNorm2d)), None)
    if norm is not None:
        nn.init.constant_(norm.weight, 3)
    before = copy.deepcopy(model.state_dict())
    places = [parameter.data_ptr() for parameter in model.parameters()]
    if fails:
        with pytest.raises(ArithmeticError):
            early_blocks(model, BATCH, 0)
    else:
        early_blocks(model, BATCH, 0)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert [parameter.data_ptr() for parameter in model.parameters()] == places
    for module in model.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks


def test_normalisation_is_set_to_identity() -> None:
    plain, scaled = CifarResNet((1, 1, 1)), CifarResNet((1, 1, 1))
    for module in scaled.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 1, 9)
            nn.init.uniform_(module.bias, -2, 2)
    assert early_blocks(plain, BATCH, 0) == early_blocks(scaled, BATCH, 0)


def test_few_images_are_taken_again() -> None:
    model = CifarResNet((1, 1, 1))
    found = early_blocks(model, BATCH[:2], 0)
    assert found == early_blocks(model, BATCH[:2], 0)
    assert found is not None and math.isfinite(found.roughness)


def test_a_network_without_maps_has_no_early_blocks() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 8), nn.ReLU(), nn.Linear(8, 5))
    assert early_blocks(model, BATCH, 0) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_weights_are_the_same_on_a_gpu() -> None:
    model = CifarResNet((2, 1, 1))
    here = early_blocks(model, BATCH, 0)
    there = early_blocks(copy.deepcopy(model).cuda(), BATCH.cuda(), 0)
    assert here is not None and there is not None
    assert there.roughness == pytest.approx(here.roughness, rel=1e-3)


# Roughness


def test_roughness_by_hand() -> None:
    ramp = torch.tensor([[0.0, 1.0], [0.0, 1.0]])[None, None]  # variance 1/4, steps 0 and 1
    assert roughness(ramp) == pytest.approx(math.log(4))
    assert roughness(7 * ramp + 3) == pytest.approx(math.log(4))


def test_roughness_of_white_noise_and_of_what_is_smoothed() -> None:
    noise = torch.randn(8, 4, 64, 64, generator=torch.Generator().manual_seed(1))
    assert roughness(noise) == pytest.approx(math.log(4), abs=0.02)
    once, twice = noise, noise
    once = nn.functional.avg_pool2d(noise, 3, 1, 1)
    twice = nn.functional.avg_pool2d(once, 3, 1, 1)
    assert roughness(noise) > roughness(once) + 1 > roughness(twice) + 1.5


def test_what_does_not_vary_is_the_smoothest() -> None:
    assert roughness(torch.ones(2, 3, 4, 4)) == -math.inf
    assert roughness(torch.randn(2, 3, 1, 1)) == -math.inf


# Correlations


def test_correlations_are_pearsons() -> None:
    features = torch.randn(3, 5, 4, 4, generator=torch.Generator().manual_seed(2))
    features[:, 1] = 1e4 * (features[:, 0] + features[:, 2]) + 9
    rows = features.double().movedim(1, 0).flatten(1).numpy()
    found = channel_correlations(features).numpy()
    np.testing.assert_allclose(found, np.corrcoef(rows), atol=1e-5)


def test_a_channel_that_does_not_vary_has_no_correlations() -> None:
    features = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    features[:, 1] = 2
    found = channel_correlations(features)
    assert found[1].tolist() == [0, 0, 0] == found[:, 1].tolist()
    assert found[0, 0] == pytest.approx(1)
