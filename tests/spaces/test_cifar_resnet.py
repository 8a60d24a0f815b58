from __future__ import annotations

import itertools

import pytest
import torch
from optuna.trial import FixedTrial
from torch import nn

from diswot.costs.counts import count_depth, count_macs, count_params
from diswot.spaces.cifar_resnet import CifarResNet, build
from diswot.spaces.registry import build_network, create_space, enumerate_params

DEPTHS = (1, 3, 5, 7)


def chosen(*blocks: int) -> dict[str, int]:
    return {f"blocks{i}": count for i, count in enumerate(blocks, 1)}


def by_hand(blocks: tuple[int, int, int], classes: int) -> int:
    """Parameters: 3x3 convolutions and norms of two a block, 1x1 where the shape changes."""
    total, inputs = 3 * 16 * 9 + 2 * 16, 16
    for count, outputs in zip(blocks, (16, 32, 64), strict=True):
        for _ in range(count):
            total += 9 * inputs * outputs + 9 * outputs * outputs + 4 * outputs
            total += inputs * outputs + 2 * outputs if inputs != outputs else 0
            inputs = outputs
    return total + 64 * classes + classes


def test_resnet20_by_hand() -> None:
    stem, head = 432 + 32, 640 + 10
    stage1 = 3 * (2 * 2304 + 2 * 32)
    stage2 = (4608 + 9216 + 512 + 3 * 64) + 2 * (2 * 9216 + 2 * 64)
    stage3 = (18432 + 36864 + 2048 + 3 * 128) + 2 * (2 * 36864 + 2 * 128)
    model = CifarResNet((3, 3, 3), 10)

    assert stem + stage1 + stage2 + stage3 + head == 272_474
    assert count_params(model) == 272_474
    assert count_depth(model) == 1 + 6 + 7 + 7 + 1
    stage1, stage2, stage3 = 6 * 2304, 4608 + 5 * 9216 + 512, 18432 + 5 * 36864 + 2048
    macs = 1024 * (432 + stage1) + 256 * stage2 + 64 * stage3 + 640
    assert count_macs(model, (3, 32, 32)) == macs == 40_813_184


def test_64_different_networks_of_the_size_by_hand() -> None:
    sizes = {}
    for blocks in itertools.product(DEPTHS, repeat=3):
        with torch.device("meta"):
            model = build(FixedTrial(chosen(*blocks)), num_classes=100)
        assert [len(stage) for stage in (model.layer1, model.layer2, model.layer3)] == [*blocks]
        assert count_params(model) == by_hand(blocks, 100)
        sizes[blocks] = count_params(model)

    assert len(set(sizes.values())) == 64
    assert (min(sizes), max(sizes)) == ((1, 1, 1), (7, 7, 7))


def test_enumeration_is_complete() -> None:
    plan = enumerate_params(build, 64)

    assert plan == [chosen(*blocks) for blocks in itertools.product(DEPTHS, repeat=3)]
    assert enumerate_params(build, 63) is None


def test_names_of_the_layers() -> None:
    """Checkpoints and users' scripts know them."""
    names = set(CifarResNet((2, 1, 1), 10).state_dict())

    assert {n for n in names if n.startswith("layer1.0") and n.endswith("weight")} == {
        f"layer1.0.{layer}.weight" for layer in ("conv1", "bn1", "conv2", "bn2")
    }
    assert {"conv1.weight", "bn1.weight", "layer1.1.conv2.weight", "fc.weight", "fc.bias"} <= names
    assert {"layer2.0.shortcut.0.weight", "layer3.0.shortcut.1.weight"} <= names
    assert not any("shortcut" in name and name.startswith("layer1") for name in names)


def test_stages_halve_the_map() -> None:
    model, maps = CifarResNet((1, 3, 1), 4).eval(), []
    for stage in (model.layer1, model.layer2, model.layer3):
        stage.register_forward_hook(lambda module, inputs, output: maps.append(output.shape))

    with torch.no_grad():
        model(torch.zeros(2, 3, 32, 16))

    assert maps == [(2, 16, 32, 16), (2, 32, 16, 8), (2, 64, 8, 4)]


def test_widths_may_be_others() -> None:
    model = CifarResNet((1, 1, 1), 2, widths=(4, 4, 6))

    assert model.layer2[0].shortcut[0].stride == (2, 2)
    assert isinstance(model.fc, nn.Linear) and model.fc.in_features == 6


@pytest.mark.parametrize("block", ["layer1", "layer2"])
def test_block_adds_its_shortcut(block: str) -> None:
    """With the last norm at zero, what is left is the rectified shortcut."""
    model = CifarResNet((1, 1, 1), 2).get_submodule(f"{block}.0").eval()
    nn.init.zeros_(model.bn2.weight)
    images = torch.randn(2, 16, 4, 4, generator=torch.Generator().manual_seed(0))

    shortcut = images if model.shortcut is None else model.shortcut(images)

    assert torch.equal(model(images), shortcut.relu())


# With widths


def wide(*blocks: int, widths: tuple[int, ...] = (16, 32, 64)) -> CifarResNet:
    params = chosen(*blocks) | {f"width{i}": width for i, width in enumerate(widths, 1)}
    model = build_network(create_space("cifar_resnet", 10), params)
    assert isinstance(model, CifarResNet)
    return model


def test_s0_and_resnet56_are_in_the_wider_space() -> None:
    for blocks in ((1, 3, 7), (5, 5, 5), (9, 9, 9)):
        states = [model.state_dict() for model in (wide(*blocks), CifarResNet(blocks, 10))]
        assert {n: v.shape for n, v in states[0].items()} == {
            n: v.shape for n, v in states[1].items()
        }


def test_last_map_is_as_wide_as_the_teachers() -> None:
    model = wide(2, 4, 6, widths=(8, 48, 96))

    assert model.fc.in_features == 64 and model.neck is not None
    assert count_params(model.neck) == 96 * 64 + 2 * 64
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    with_neck = count_params(model) - count_params(model.neck) - 64 * 10 + 96 * 10
    assert with_neck == count_params(CifarResNet((2, 4, 6), 10, (8, 48, 96)))
