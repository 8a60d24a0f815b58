from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import hardswish
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.models.resnet import Bottleneck
from torchvision.ops import Conv2dNormActivation, SqueezeExcitation

from diswot import UserError, inherit
from diswot.costs.counts import count_depth, count_macs, count_params
from diswot.models.registry import create_teacher
from diswot.observation.observe import observe
from diswot.spaces import cifar_cnn
from diswot.spaces.registry import SPACES, build_network, create_space

Params = dict[str, Any]
WIDTHS = (16, 32, 64)


def chosen(
    block: str,
    widths: tuple[int, ...] = WIDTHS,
    depths: tuple[int, ...] = (3, 3, 3),
    kernel: int = 3,
    head: int = 0,
    expand: int = 6,
    **others: Any,
) -> Params:
    params: Params = {"stem": 16, "activation": "relu", "head": head}
    for i, (width, depth) in enumerate(zip(widths, depths, strict=True), 1):
        params |= {f"block_{i}": block, f"width_{i}": width, f"depth_{i}": depth}
        params |= {f"kernel_{i}": kernel}
        if block.startswith("inverted"):
            params |= {f"expand_{i}": expand}
    return params | others


RESNET20 = chosen("basic")
RESNET29 = chosen("bottleneck")
MOBILENET_V2 = chosen("inverted", (24, 32, 64), (2, 3, 4), head=256)
SMALLEST = chosen("inverted", (8, 16, 32), (1, 1, 1), expand=2, stem=8)
LARGEST = chosen("basic", (48, 96, 192), (9, 9, 9), kernel=5, head=512, stem=64)
ALL = (RESNET20, RESNET29, MOBILENET_V2)


def built(params: Params, classes: int = 10, size: int = 32) -> cifar_cnn.CifarCnn:
    model = build_network(create_space("cifar_cnn", classes, size), params)
    assert isinstance(model, cifar_cnn.CifarCnn)
    return model


def images(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in model.state_dict().items()}


def measured(model: nn.Module) -> nn.Module:
    """Give each norm statistics that differ from channel to channel."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    return model.eval()


# Published networks


@pytest.mark.parametrize("blocks", [3, 5, 9])
def test_resnets_of_the_registry(blocks: int) -> None:
    ours = measured(built(chosen("basic", depths=(blocks,) * 3), 100))
    named = create_teacher(f"resnet{6 * blocks + 2}", 100)

    assert shapes(ours) == shapes(named)
    named.load_state_dict(ours.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(ours(images()), named.eval()(images()))
    assert count_macs(ours, (3, 32, 32)) == count_macs(named, (3, 32, 32))


def torchvision_bottlenecks() -> nn.Sequential:
    layers: list[nn.Module] = [Conv2dNormActivation(3, 16)]
    inputs = 16
    for width, stride in zip(WIDTHS, (1, 2, 2), strict=True):
        for step in (stride, 1, 1):
            down = None
            if step != 1 or inputs != 4 * width:
                conv = nn.Conv2d(inputs, 4 * width, 1, step, bias=False)
                down = nn.Sequential(conv, nn.BatchNorm2d(4 * width))
            layers.append(Bottleneck(inputs, width, step, down))
            inputs = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 10))


def test_resnet29_of_torchvisions_bottlenecks() -> None:
    """9 n + 2 layers, n = 3; timm registers the shortcut of a block first, torchvision last."""
    ours, theirs = measured(built(RESNET29)), torchvision_bottlenecks().eval()
    state = ours.state_dict()
    names = [name for name in state if "shortcut" not in name]
    for name in state:
        if "shortcut" in name:
            block = name.partition(".shortcut")[0] + "."
            last = max(i for i, each in enumerate(names) if each.startswith(block))
            names.insert(last + 1, name)
    values = [state[name] for name in names]
    theirs.load_state_dict(dict(zip(theirs.state_dict(), values, strict=True)))

    with torch.no_grad():
        torch.testing.assert_close(ours(images()), theirs(images()))
    assert count_depth(ours) - 3 == 29  # without the 1x1 convolutions of three shortcuts


def torchvision_mobilenet_v2() -> nn.Sequential:
    layers: list[nn.Module] = [Conv2dNormActivation(3, 16)]
    inputs = 16
    for width, depth, stride in ((24, 2, 1), (32, 3, 2), (64, 4, 2)):
        for step in [stride] + [1] * (depth - 1):
            layers.append(InvertedResidual(inputs, width, step, 6))
            inputs = width
    layers += [Conv2dNormActivation(64, 256, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Linear(256, 10))
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU6):
                setattr(module, name, nn.ReLU())
    return model


def test_mobilenet_v2_of_torchvisions_blocks() -> None:
    ours, theirs = measured(built(MOBILENET_V2)), torchvision_mobilenet_v2().eval()
    values = ours.state_dict().values()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), values, strict=True)))

    with torch.no_grad():
        torch.testing.assert_close(ours(images()), theirs(images()))


def of_inverted(inputs: int, outputs: int, kernel: int = 3, expand: int = 6) -> int:
    """Weights of the three convolutions of an inverted residual."""
    hidden = inputs * expand
    return inputs * hidden + kernel**2 * hidden + hidden * outputs


def test_sizes_by_hand() -> None:
    sides = (1024, 256, 64)
    # bottlenecks: from 16 or 4 w' channels to w, 9 w^2, to 4 w; a 1x1 shortcut in each first block
    first = [i * w + 9 * w * w + 4 * w * w for i, w in ((16, 16), (64, 32), (128, 64))]
    rest = [4 * w * w + 9 * w * w + 4 * w * w for w in WIDTHS]
    side_paths = [16 * 64, 64 * 128, 128 * 256]
    convs = [f + 2 * r + s for f, r, s in zip(first, rest, side_paths, strict=True)]
    norms = sum(2 * (3 * (w + w + 4 * w) + 4 * w) for w in WIDTHS) + 32
    model = built(RESNET29)
    assert count_params(model) == 432 + sum(convs) + norms + 2570 == 313_114
    # the first convolution of a stage sees the larger map
    early = 64 * 32 * (1024 - 256) + 128 * 64 * (256 - 64)
    macs = 1024 * 432 + sum(s * c for s, c in zip(sides, convs, strict=True)) + early + 2560
    assert count_macs(model, (3, 32, 32)) == macs

    stages = [(16, 24, 2), (24, 32, 3), (32, 64, 4)]
    convs = [of_inverted(i, o) + (n - 1) * of_inverted(o, o) for i, o, n in stages]
    norms = sum(2 * (12 * i + o) + (n - 1) * 2 * (12 * o + o) for i, o, n in stages)
    model = built(MOBILENET_V2)
    head = 64 * 256 + 512 + 2570
    assert count_params(model) == 432 + 32 + sum(convs) + norms + head == 257_466
    early = 6 * 24 * 24 * (1024 - 256) + 6 * 32 * 32 * (256 - 64)
    macs = 1024 * 432 + sum(s * c for s, c in zip(sides, convs, strict=True)) + early
    assert count_macs(model, (3, 32, 32)) == macs + 64 * 64 * 256 + 2560

    assert count_params(built(RESNET20)) == 272_474


def test_size_of_the_space() -> None:
    """Each stage: two kinds, and two with three expansions; 5 widths, 9 depths, 2 kernels."""
    assert SPACES["cifar_cnn"].size == 4 * 2 * 5 * ((2 + 2 * 3) * 5 * 9 * 2) ** 3
    with torch.device("meta"):
        sizes = [count_params(built(params, 100)) for params in (SMALLEST, LARGEST)]
    assert sizes == [6_652, 21_407_364]


# Choices


def test_kernel_and_gate() -> None:
    one = chosen("inverted", depths=(1, 1, 1), head=64)
    sizes = [
        count_params(built(one | change))
        for change in ({}, {"kernel_2": 5}, {"block_2": "inverted_se"}, {"expand_2": 4})
    ]

    assert sizes[1] - sizes[0] == (25 - 9) * 96
    assert sizes[2] - sizes[0] == 2 * 96 * 4 + 96 + 4  # 16 / 4 channels in the gate
    assert sizes[0] - sizes[3] == (96 - 64) * (16 + 9 + 32 + 4)


def test_gate_is_torchvisions() -> None:
    block = built(chosen("inverted_se")).layer2[1]
    theirs = SqueezeExcitation(192, 8)
    values = block.se.state_dict().values()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), values, strict=True)))
    x = torch.randn(2, 192, 4, 4, generator=torch.Generator().manual_seed(0))

    torch.testing.assert_close(block.se(x), theirs(x))


def test_kernel_and_activation_of_basic_blocks() -> None:
    block = built(chosen("basic", kernel=5, activation="hardswish")).layer1[0].eval()
    x = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    y = block.bn2(block.conv2(hardswish(block.bn1(block.conv1(x)))))

    assert block.conv1.kernel_size == block.conv2.kernel_size == (5, 5)
    torch.testing.assert_close(block(x), hardswish(x + y))


@pytest.mark.parametrize("block", cifar_cnn.BLOCKS)
def test_hardswish_is_everywhere(block: str) -> None:
    model = built(chosen(block, depths=(1, 1, 1), head=64, activation="hardswish"))
    kinds = {type(module) for module in model.modules()}

    assert nn.Hardswish in kinds and nn.ReLU not in kinds


def test_a_stage_of_each_kind() -> None:
    kinds = {"block_1": "inverted_se", "expand_1": 4, "block_2": "basic", "block_3": "bottleneck"}
    seen = observe(built(RESNET20 | kinds).train(), images(4), torch.arange(4))

    assert [tuple(stage.shape[1:]) for stage in seen.stages] == [
        (16, 32, 32),
        (32, 16, 16),
        (256, 8, 8),
    ]


@pytest.mark.parametrize(
    ("size", "grid"), [(8, 2), (32, 8), (63, 16), (64, 8), (96, 12), (128, 8), (224, 14)]
)
def test_last_grid(size: int, grid: int) -> None:
    with torch.device("meta"):
        model = built(RESNET20, size=size)
        x = torch.zeros(2, 3, size, size)
        first = model.pool1(model.conv1(x))

    assert first.shape[2] < 64
    assert model.layer3(model.layer2(model.layer1(first))).shape == (2, 64, grid, grid)


def test_features_in_place_of_the_head() -> None:
    def of_64(trial: Any) -> nn.Module:
        return cifar_cnn.build(trial, 10, features=64)

    fixed = {name: value for name, value in RESNET29.items() if name != "head"}
    assert build_network(of_64, fixed).neck[0].weight.shape == (64, 256, 1, 1)
    fixed |= {"block_3": "basic"}
    assert build_network(of_64, fixed).neck is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block_1": "dense"}, "block_1 = 'dense' is not among its choices: 'basic', "),
        ({"width_3": 8}, "width_3 = 8 is not among its choices: 32, 64, 96, 128, 192"),
        ({"depth_2": 10}, "depth_2 = 10 is not among its choices"),
        ({"activation": "gelu"}, "activation = 'gelu' is not among its choices"),
        ({"block_1": "inverted"}, "parameter 'expand_1' is missing; its choices: 2, 4, 6"),
        ({"expand_1": 6}, "unknown parameter 'expand_1'"),
    ],
)
def test_impossible_choices(change: Params, message: str) -> None:
    with pytest.raises(UserError, match=message):
        built(RESNET20 | change)


# Inheritance


@pytest.mark.parametrize("teacher", ["resnet32", "resnet56"])
def test_resnet20_inherits_all(teacher: str) -> None:
    found = inherit(create_teacher(teacher, 10), built(RESNET20))

    assert found.share == 1
    assert {row.module: row.source for row in found.rows}["layer2.1.conv1"] == (
        "layer2.2.conv1" if teacher == "resnet32" else "layer2.4.conv1"
    )


def test_resnet20_of_its_own_teacher() -> None:
    teacher, student = measured(create_teacher("resnet20", 10)), built(RESNET20).eval()
    inherit(teacher, student)

    with torch.no_grad():
        torch.testing.assert_close(student(images()), teacher(images()))


@pytest.mark.parametrize("params", [RESNET29, MOBILENET_V2])
def test_other_blocks_inherit_stem_and_classifier(params: Params) -> None:
    """Of a teacher of basic blocks, 64 of the 256 inputs of the classifier have a source."""
    student = built(params)
    found = inherit(create_teacher("resnet56", 10), student)

    assert {row.module for row in found.rows if row.source} == {"conv1", "bn1", "fc"}
    assert found.share == pytest.approx((432 + 32 + 640 + 10) / count_params(student))


def test_stage_of_other_blocks_among_basic_ones() -> None:
    student = built(RESNET20 | {"block_3": "inverted", "expand_3": 6})
    found = inherit(create_teacher("resnet56", 10), student)
    taken = {row.module.partition(".")[0] for row in found.rows if row.source}

    assert taken == {"conv1", "bn1", "layer1", "layer2", "fc"}
    assert 0 < found.share < 1


@pytest.mark.parametrize("params", ALL)
def test_sizes_in_the_page(params: Params) -> None:
    page = (Path(__file__).parents[2] / "docs" / "spaces.md").read_text()
    model = built(params, 100)

    assert f"| {count_params(model):,} | {count_macs(model, (3, 32, 32)) / 1e6:.1f} M |" in page
