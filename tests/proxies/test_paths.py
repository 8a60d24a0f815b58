from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn

from diswot.models.cifar_resnet import BasicBlock, CifarResNet
from diswot.observation.modes import measuring
from diswot.proxies.layer_recorder import LayerRecorder
from diswot.proxies.paths import BlockCall, shortest_path
from diswot.spaces import autoformer, nasbench101, nasbench201
from diswot.spaces.registry import build_network


def cell(text: str) -> nn.Module:
    return nasbench201.cell(nasbench201.from_string(text), 8)


MAP = (1, 8, 6, 6)
CHAIN = "|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|none~0|none~1|nor_conv_3x3~2|"
POOLED = "|avg_pool_3x3~0|+|none~0|nor_conv_1x1~1|+|none~0|none~1|avg_pool_3x3~2|"
BOTH = "|nor_conv_3x3~0|+|nor_conv_1x1~0|nor_conv_3x3~1|+|none~0|nor_conv_3x3~1|nor_conv_3x3~2|"
SHORT = "|nor_conv_3x3~0|+|nor_conv_1x1~0|nor_conv_3x3~1|+|skip_connect~0|none~1|nor_conv_3x3~2|"
NONE = "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"


class Squeeze(nn.Module):
    """Two layers, the second weighed by a gate of two more."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1))

    def forward(self, x: Tensor, factor: float = 1.0) -> Tensor:
        x = torch.relu(self.second(self.first(x)))
        return factor * x * self.gate(x).sigmoid()


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (cell(CHAIN), 3),
        (cell(POOLED), 1),
        (cell(BOTH), 2),
        (cell(SHORT), 0),
        (cell(NONE), 0),
        (Squeeze(), 2),
        (nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.GELU(), nn.Conv2d(8, 8, 1)), 2),
        (nn.Identity(), 0),
    ],
)
def test_shortest_path(block: nn.Module, expected: int) -> None:
    before = {name: value.clone() for name, value in block.state_dict().items()}
    assert shortest_path(BlockCall(block, MAP)) == expected
    assert all(torch.equal(value, before[name]) for name, value in block.state_dict().items())
    assert not any(module._forward_hooks for module in block.modules())


def test_what_a_block_is_called_with_is_handed_on() -> None:
    assert shortest_path(BlockCall(Squeeze(), MAP, (2.0,))) == 2
    assert (
        shortest_path(BlockCall(Squeeze(), MAP, (), {"factor": 0.0})) == 0
    )  # nothing comes through


def test_attention_has_a_shortcut_or_two_layers() -> None:
    block = autoformer.Block(24, 3)
    assert shortest_path(BlockCall(block, (1, 16, 24))) == 0
    assert shortest_path(BlockCall(block.attn, (1, 16, 24))) == 2


def calls(model: nn.Module, pixels: int = 16) -> list[BlockCall]:
    images = torch.randn(2, 3, pixels, pixels, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), LayerRecorder(model, images) as recorder, measuring(model):
        model(images)
    return list(recorder.calls.values())


def test_the_first_block_of_each_shape_that_keeps_it_is_looked_at() -> None:
    model = CifarResNet((2, 3, 1))
    found = calls(model)
    assert [call.block for call in found] == [model.layer1[0], model.layer2[1]]
    assert [call.shape for call in found] == [(1, 16, 16, 16), (1, 32, 8, 8)]
    assert all(isinstance(call.block, BasicBlock) for call in found)


def test_cells_of_nasbench101_project_what_they_take() -> None:
    matrix = [[0, 1, 1], [0, 0, 1], [0, 0, 0]]
    ops = ["input", nasbench101.OPERATIONS[0], "output"]
    model = build_network(lambda t: nasbench101.build(t, 10), nasbench101.from_matrix(matrix, ops))
    assert [shortest_path(call) for call in calls(model)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("name", "lengths"),
    [
        ("swin_tiny_patch4_window7_224", {0}),
        ("convnext_atto", {0}),
        ("levit_128s", {0, 1}),  # its downsampling has a layer in a list by itself
    ],
)
def test_blocks_of_timm(name: str, lengths: set[int]) -> None:
    assert {shortest_path(call) for call in calls(timm.create_model(name), 224)} == lengths
