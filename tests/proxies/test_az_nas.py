from __future__ import annotations

import itertools
import math

import pytest
import timm
import torch
import torchvision
import toys
from proxies import naive
from torch import Tensor, nn
from toys import seeded

from diswot.data.dataset import Batch
from diswot.errors import UserError
from diswot.proxies import az_nas, size
from diswot.proxies.blocks import primary_blocks
from diswot.proxies.candidate import Candidate
from diswot.proxies.eigen import eigenvalues, spectral_entropy
from diswot.proxies.recorders import BlockEntropies, component_square
from diswot.spaces import nasbench201
from diswot.spaces.cifar_resnet import CifarResNet
from diswot.spaces.registry import build_network


def component_entropy(features: Tensor) -> float:
    return spectral_entropy(eigenvalues(component_square(features)))


def candidate(model: nn.Module, images: Tensor, labels: Tensor, seed: int = 0) -> Candidate:
    return Candidate(model, None, Batch(images, labels), seed)


def names(model: nn.Module) -> list[str]:
    known = {id(module): name for name, module in model.named_modules()}
    return [known[id(block)] for block in primary_blocks(model)]


# What is a block


def test_blocks_of_a_resnet() -> None:
    expected = [
        f"layer{stage}.{i}" for stage, count in ((1, 2), (2, 1), (3, 3)) for i in range(count)
    ]
    assert names(CifarResNet((2, 1, 3))) == expected


@pytest.mark.parametrize("operation", nasbench201.OPERATIONS)
def test_blocks_of_a_cell_network_do_not_depend_on_the_cell(operation: str) -> None:
    edges = {f"op_{node}_{source}": operation for node in (1, 2, 3) for source in range(node)}
    expected = [f"stage1.{i}" for i in range(5)]
    expected += [f"stage{stage}.{i}" for stage in (2, 3) for i in range(6)]
    assert names(build_network(nasbench201.build, edges)) == expected


def test_blocks_of_other_networks() -> None:
    vit = timm.models.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=8, depth=2, num_heads=2
    )
    assert names(vit) == ["blocks.0", "blocks.1"]
    swin = timm.create_model("swin_tiny_patch4_window7_224", depths=(2, 2), num_heads=(2, 2))
    assert names(swin) == [f"layers.{s}.blocks.{i}" for s in (0, 1) for i in (0, 1)]
    mobile = torchvision.models.mobilenet_v3_small()
    assert names(mobile) == [f"features.{i}" for i in range(1, 12)]
    assert names(seeded(toys.Nested)) == [f"backbone.stages.{i}" for i in range(3)]


def test_a_network_without_blocks_is_a_row_of_layers() -> None:
    assert names(seeded(toys.LinearHead)) == ["block1.0", "block2.0", "fc"]


# Expressivity and progressivity


def test_entropy_of_components_by_hand() -> None:
    even = torch.tensor([[1.0, -1.0, 1.0, -1.0], [1.0, 1.0, -1.0, -1.0]]).reshape(1, 2, 2, 2)
    assert component_entropy(even + 5) == pytest.approx(math.log(2))
    assert component_entropy(even * torch.tensor([1.0, 0.0])[:, None, None]) == 0
    assert component_entropy(torch.full((2, 3, 2, 2), 7.0)) == 0
    scaled = even * torch.tensor([math.sqrt(3), 1.0])[:, None, None]
    assert component_entropy(scaled) == pytest.approx(
        -0.75 * math.log(0.75) - 0.25 * math.log(0.25)
    )


@pytest.mark.parametrize("shape", [(4, 3, 5, 5), (2, 30, 2, 2), (2, 6, 1, 1)])
@pytest.mark.parametrize("scale", [1.0, 1e30, 1e-30])
def test_entropy_of_components_is_as_by_singular_values(
    shape: tuple[int, ...], scale: float
) -> None:
    features = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * scale
    # Sums over C channels in float32: a component that is zero may get the share C * eps.
    share = shape[1] * torch.finfo(torch.float32).eps
    near = pytest.approx(naive.component_entropy(features), rel=1e-4, abs=-share * math.log(share))
    assert component_entropy(features) == near
    assert component_entropy(features.contiguous(memory_format=torch.channels_last)) == near


def test_expressivity_and_progressivity_are_as_block_by_block() -> None:
    given = candidate(seeded(toys.Nested), *toys.batch())
    backbone = naive.double(given.student).backbone
    with torch.no_grad():
        features = backbone.stem(given.batch.images.double())
        maps = [features := block(features) for block in backbone.stages]
    values = [naive.component_entropy(m) for m in maps]
    gains = [after - before for before, after in itertools.pairwise(values)]
    assert az_nas.expressivity(given) == pytest.approx(sum(values), rel=1e-5)
    assert az_nas.progressivity(given) == pytest.approx(min(gains), abs=1e-5)


def test_one_pass_shows_both() -> None:
    runs = []
    model = seeded(toys.Nested)
    model.register_forward_pre_hook(lambda *_: runs.append(1))
    given = Candidate(model, None, Batch(*toys.batch()), 0, (BlockEntropies,))
    az_nas.expressivity(given), az_nas.progressivity(given), given.observation
    assert len(runs) == 1


# Trainability


def test_trainability_is_as_position_by_position() -> None:
    images, labels = toys.batch()
    given = candidate(seeded(toys.Nested).double(), images.double(), labels, seed=3)
    backbone = naive.double(given.student).backbone
    with torch.no_grad():
        features = backbone.stem(images.double())
        maps = [features := block(features) for block in backbone.stages]
    random = torch.Generator().manual_seed(3)
    scores = []
    for index in (1, 2):
        signs = torch.randint(0, 2, maps[index].shape, generator=random) * 2 - 1
        scores.append(naive.block_score(backbone.stages[index], maps[index - 1], signs, 2))
    assert az_nas.trainability(given) == pytest.approx(sum(scores) / 2, rel=1e-6)


class Row(nn.Module):
    """Blocks that are one orthogonal 1 x 1 convolution, times a factor."""

    def __init__(self, factor: float, stride: int = 1) -> None:
        super().__init__()
        convolutions = [nn.Conv2d(3, 3, 1, bias=False), nn.Conv2d(3, 3, 1, stride, bias=False)]
        self.blocks = nn.Sequential(*(nn.Sequential(c, nn.Identity()) for c in convolutions))
        self.fc = nn.Linear(3, 2)
        with torch.no_grad():
            for convolution in convolutions:
                convolution.weight.copy_(factor * torch.eye(3)[[1, 2, 0], :, None, None])

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.blocks(images).mean((2, 3)))


@pytest.mark.parametrize(("factor", "expected"), [(1.0, 0.0), (3.0, -4 / 3), (0.5, -0.5)])
@pytest.mark.parametrize("stride", [1, 2])
def test_trainability_of_orthogonal_blocks(factor: float, expected: float, stride: int) -> None:
    images = torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    given = candidate(Row(factor, stride), images, torch.zeros(64, dtype=torch.int64))
    assert az_nas.trainability(given) == pytest.approx(expected, abs=0.1)


def test_grids_that_do_not_divide_are_padded() -> None:
    images = torch.randn(64, 3, 15, 15, generator=torch.Generator().manual_seed(0))
    given = candidate(Row(1.0, 2), images, torch.zeros(64, dtype=torch.int64))
    assert az_nas.trainability(given) == pytest.approx(0, abs=0.05)


def test_a_block_that_lets_no_gradient_through_scores_lowest() -> None:
    given = candidate(seeded(toys.LinearHead), *toys.batch())
    nn.init.zeros_(given.student.block2[0].weight)
    assert az_nas.trainability(given) == -math.inf


def test_too_few_blocks() -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    given = candidate(nn.Sequential(model, nn.Linear(2, 5)), *toys.batch())
    assert az_nas.expressivity(given) > 0
    for proxy in (az_nas.progressivity, az_nas.trainability):
        with pytest.raises(UserError, match="too few"):
            proxy(given)


def test_complexity_is_macs() -> None:
    given = candidate(seeded(toys.LinearHead), *toys.batch())
    assert az_nas.complexity(given) == size.macs(given) == 64 * 27 * 4 + 16 * 36 * 6 + 30
