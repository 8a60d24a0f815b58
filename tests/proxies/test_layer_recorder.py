from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from diswot.observation.modes import measuring
from diswot.proxies.layer_recorder import LayerRecorder
from diswot.spaces import nasbench201
from diswot.spaces.cifar_resnet import CifarResNet
from diswot.spaces.registry import build_network

IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def seen(model: nn.Module, images: Tensor = IMAGES) -> LayerRecorder:
    with torch.no_grad(), LayerRecorder(model, images) as recorder, measuring(model):
        model(images)
    return recorder


def cell(text: str) -> nn.Module:
    return build_network(nasbench201.build, nasbench201.from_string(text))


class Block(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def classifier(*blocks: nn.Module, width: int) -> nn.Module:
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5))
    return nn.Sequential(nn.Sequential(*blocks), *head)


# Size


@pytest.mark.parametrize("blocks", [(1, 1, 1), (3, 1, 5), (2, 4, 3)])
def test_size_of_a_resnet(blocks: tuple[int, int, int]) -> None:
    """Two 3 x 3 convolutions a block count 2 each, the two 1 x 1 shortcuts 1, times the width."""
    convolutions = sum(4 * width * count for width, count in zip((16, 32, 64), blocks, strict=True))
    assert seen(CifarResNet(blocks)).size == pytest.approx(convolutions + 32 + 64)


def test_a_block_counts_with_the_width_that_it_gives() -> None:
    wide = Block(nn.Conv2d(3, 40, 1), nn.Conv2d(40, 8, 5, padding=2))
    narrow = Block(nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1))
    expected = 8 * (1 + math.log2(6)) + 8 * 2
    assert seen(classifier(wide, narrow, width=8)).size == pytest.approx(expected)


def test_groups_look_less_far() -> None:
    apart = Block(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1, groups=4))
    plain = Block(nn.Conv2d(4, 4, 1))
    expected = 4 * (1 + math.log2(1 + 3 / 2)) + 4
    assert seen(classifier(apart, plain, width=4)).size == pytest.approx(expected)


def test_a_layer_that_no_image_reaches_does_not_count() -> None:
    used = "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|skip_connect~1|none~2|"
    spare = "|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|none~0|skip_connect~1|none~2|"
    zeros = "|none~0|+|none~0|none~1|+|skip_connect~0|nor_conv_3x3~1|none~2|"
    empty = "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"
    sizes = [seen(cell(text)).size for text in (used, spare, zeros, empty)]
    assert sizes[0] == sizes[1] == sizes[2] + 5 * 2 * (16 + 32 + 64)
    assert sizes[2] == sizes[3]


def test_a_network_without_maps_has_no_size() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 8), nn.ReLU(), nn.Linear(8, 5))
    assert seen(model).size == 0


class Folded(nn.Module):
    """Two blocks on the tokens of each quarter of an image, as in MobileViT: 4B x HW/4 x D."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(Block(nn.Conv2d(3, 6, 1)), Block(nn.Conv2d(6, 6, 1)))
        self.inner = nn.Sequential(Block(nn.Linear(6, 6)), Block(nn.Linear(6, 9), nn.Linear(9, 6)))

    def forward(self, images: Tensor) -> Tensor:
        features = self.first(images)
        tokens = features.unflatten(2, (-1, 2)).unflatten(4, (-1, 2))
        return self.inner(tokens.permute(0, 3, 5, 2, 4, 1).flatten(0, 2).flatten(1, 2))


def test_blocks_on_parts_of_images_count() -> None:
    assert seen(Folded()).size == pytest.approx(6 * 2 + 6 * 3)
