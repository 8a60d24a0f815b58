from __future__ import annotations

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


# Sizes


def sizes(model: nn.Module, images: Tensor = IMAGES) -> list[tuple[int, float]]:
    return list(map(tuple, seen(model, images).sizes.values()))


@pytest.mark.parametrize("blocks", [(1, 1, 1), (3, 1, 5), (2, 4, 3)])
def test_sizes_of_a_resnet(blocks: tuple[int, int, int]) -> None:
    """The stem, two 3 x 3 convolutions a block and two 1 x 1 shortcuts; not the classifier."""
    expected = [(3 * 9 * 16, 16 * 256.0)]
    inputs = 16
    for place, (width, count) in enumerate(zip((16, 32, 64), blocks, strict=True)):
        values = width * (16 / 2**place) ** 2
        expected += [(9 * width * (inputs if i == 0 else width), values) for i in range(2 * count)]
        expected += [(inputs * width, values)] * (inputs != width)
        inputs = width
    assert sorted(sizes(CifarResNet(blocks))) == sorted(expected)


def test_groups_have_fewer_weights() -> None:
    apart = Block(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1, groups=4))
    plain = Block(nn.Conv2d(4, 4, 1))
    assert sizes(classifier(apart, plain, width=4)) == [(12, 1024), (36, 1024), (16, 1024)]


def test_a_shared_weight_counts_once() -> None:
    layer = nn.Conv2d(3, 3, 1)
    assert sizes(classifier(Block(layer), Block(layer), width=3)) == [(9, 768)]


def test_a_layer_that_no_image_reaches_does_not_count() -> None:
    used = "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|skip_connect~1|none~2|"
    spare = "|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|none~0|skip_connect~1|none~2|"
    zeros = "|none~0|+|none~0|none~1|+|skip_connect~0|nor_conv_3x3~1|none~2|"
    empty = "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"
    found = [sizes(cell(text)) for text in (used, spare, zeros, empty)]
    assert found[0] == found[1]
    assert len(found[0]) == len(found[2]) + 5 * 3
    assert found[2] == found[3]


def test_a_network_without_maps_has_no_sizes() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 8), nn.ReLU(), nn.Linear(8, 5))
    assert sizes(model) == []


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


def test_layers_on_parts_of_images_count() -> None:
    """Each with its activations for a whole image of 256 positions."""
    convolutions = [(18, 6 * 256.0), (36, 6 * 256.0)]
    linear = [(36, 6 * 256.0), (54, 9 * 256.0), (54, 6 * 256.0)]
    assert sizes(Folded()) == convolutions + linear
