from __future__ import annotations

import copy
import math
from statistics import fmean

import pytest
import torch
from torch import Tensor, nn

from diswot.models.initialization import INITS, derive_seed
from diswot.models.registry import create_teacher
from diswot.observation.modes import measuring
from diswot.proxies.first_block import DRAWS, IMAGES, first_block_roughness, roughness
from diswot.spaces.cifar_resnet import CifarResNet

BATCH = torch.randn(10, 3, 16, 16, generator=torch.Generator().manual_seed(0))


# The first block


def first_map(model: CifarResNet, images: Tensor) -> Tensor:
    return model.layer1[0](torch.relu(model.bn1(model.conv1(images))))


def test_roughness_of_the_first_block_is_the_mean_over_draws() -> None:
    """Against a copy that is initialised whole and run by hand, draw by draw."""
    model = CifarResNet((3, 2, 1))
    rough = []
    for draw in range(DRAWS):
        drawn = copy.deepcopy(model)
        stem = nn.Sequential(drawn.conv1, drawn.layer1)  # in the order in which they run
        images = BATCH[[(draw * IMAGES + place) % 10 for place in range(IMAGES)]]
        with torch.no_grad(), measuring(drawn):
            INITS["kaiming"](stem, torch.Generator().manual_seed(derive_seed(7, draw)))
            rough.append(roughness(first_map(drawn, images)))
    assert first_block_roughness(model, BATCH, seed=7) == pytest.approx(fmean(rough))
    assert len(set(rough)) == DRAWS


def test_networks_that_begin_alike_have_the_same_roughness() -> None:
    """The weights that they have, and the blocks that follow, make no difference."""
    short = first_block_roughness(CifarResNet((1, 1, 1)), BATCH, 0)
    assert short == first_block_roughness(create_teacher("resnet56", 10), BATCH, 0)
    assert short != first_block_roughness(CifarResNet((1, 1, 1)), BATCH, 1)


def test_a_draw_stops_after_the_first_block() -> None:
    model, ran = CifarResNet((2, 2, 2)), []
    for block in model.layer1:
        block.register_forward_hook(lambda m, i, o: ran.append(m))
    first_block_roughness(model, BATCH, 0)
    assert ran == [model.layer1[0]] * DRAWS


class Broken(nn.Module):
    """A block that fails as it runs, after its convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        raise ArithmeticError(f"{self.one(images).sum()}")


@pytest.mark.parametrize("fails", [False, True])
def test_the_network_keeps_its_weights_and_no_hook(fails: bool) -> None:
    model = nn.Sequential(Broken(), Broken()) if fails else create_teacher("resnet20", 10)
    norm = next((m for m in model.modules() if isinstance(m, nn.BatchNorm2d)), None)
    if norm is not None:
        nn.init.constant_(norm.weight, 3)
    before = copy.deepcopy(model.state_dict())
    places = [parameter.data_ptr() for parameter in model.parameters()]
    if fails:
        with pytest.raises(ArithmeticError):
            first_block_roughness(model, BATCH, 0)
    else:
        first_block_roughness(model, BATCH, 0)
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
    assert first_block_roughness(plain, BATCH, 0) == first_block_roughness(scaled, BATCH, 0)


def test_few_images_are_taken_again() -> None:
    model = CifarResNet((1, 1, 1))
    found = first_block_roughness(model, BATCH[:2], 0)
    assert found == first_block_roughness(model, BATCH[:2], 0)
    assert found is not None and math.isfinite(found)


def test_a_network_without_maps_has_no_first_block_roughness() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 8), nn.ReLU(), nn.Linear(8, 5))
    assert first_block_roughness(model, BATCH, 0) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_weights_are_the_same_on_a_gpu() -> None:
    model = CifarResNet((2, 1, 1))
    here = first_block_roughness(model, BATCH, 0)
    there = first_block_roughness(copy.deepcopy(model).cuda(), BATCH.cuda(), 0)
    assert here is not None and there is not None
    assert there == pytest.approx(here, rel=1e-3)


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


def test_padding_and_brightness_are_no_detail() -> None:
    maps = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    changed = maps.clone()
    for edge in (changed[..., :2, :], changed[..., -2:, :], changed[..., :2], changed[..., -2:]):
        edge.zero_()
    assert roughness(changed) == roughness(maps)
    brighter = maps + 9 * torch.arange(4.0)[:, None, None, None]
    assert roughness(brighter) == pytest.approx(roughness(maps), abs=1e-5)


@pytest.mark.parametrize("groups", [1, 3])
def test_larger_kernels_are_no_rougher(groups: int) -> None:
    """Random filters of any size leave the spectrum of the images as it is, in the mean."""
    noise = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    images = nn.functional.avg_pool2d(noise, 3, 1, 1)

    def first(kernel: int) -> float:
        layer = nn.Conv2d(3, 24, kernel, padding=kernel // 2, groups=groups)
        found = first_block_roughness(nn.Sequential(nn.Sequential(layer)), images, 0)
        assert found is not None
        return found

    assert first(5) == pytest.approx(first(3), abs=0.1)
    assert first(7) == pytest.approx(first(3), abs=0.1)
