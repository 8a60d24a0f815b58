from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from diswot.costs.counts import count_depth, count_macs, count_params
from diswot.errors import UserError
from diswot.spaces import imagenet_resnet
from diswot.spaces.imagenet_resnet import ImageNetResNet, ResNetStage
from diswot.spaces.registry import SPACES, build_network, create_space

WIDTHS = (64, 128, 256, 512)


def chosen(*depths: int, block: str = "basic") -> dict[str, Any]:
    params: dict[str, Any] = {"stages": len(depths)}
    for i, (depth, width) in enumerate(zip(depths, (*WIDTHS, 512), strict=False), 1):
        params |= {f"block_{i}": block, f"kernel_{i}": 3, f"width_{i}": width, f"depth_{i}": depth}
    return params


def built(params: dict[str, Any], size: int = 224, features: int = 512) -> nn.Module:
    build = partial(imagenet_resnet.build, num_classes=1000, img_size=size, features=features)
    return build_network(build, params)


@pytest.mark.parametrize(
    ("params", "features", "published"),
    [
        (chosen(2, 2, 2, 2), 512, "resnet18"),
        (chosen(3, 4, 6, 3), 512, "resnet34"),
        (chosen(3, 4, 6, 3, block="bottleneck"), 2048, "resnet50"),
    ],
)
def test_published_networks_are_in_the_space(
    params: dict[str, Any], features: int, published: str
) -> None:
    """Loaded with the weights of torchvision's, they give the same logits."""
    ours, theirs = built(params, features=features), getattr(torchvision.models, published)()

    assert count_depth(ours) == count_depth(theirs)
    assert count_macs(ours, (3, 64, 64)) == count_macs(theirs, (3, 64, 64))
    ours.load_state_dict(
        dict(zip(ours.state_dict(), in_our_order(theirs, ours), strict=True)), strict=True
    )
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), rtol=1e-4, atol=1e-4)


def in_our_order(theirs: nn.Module, ours: nn.Module) -> list[torch.Tensor]:
    """torchvision's weights; its shortcut is registered last in a block, timm's first."""
    blocks: dict[str, list[torch.Tensor]] = {}
    for name, value in theirs.state_dict().items():
        block = ".".join(name.split(".")[:2]) if name.startswith("layer") else "stem"
        key = "fc" if name.startswith("fc") else block
        blocks.setdefault(key, []).append(value)
    short = {".".join(n.split(".")[:2]) for n in theirs.state_dict() if "downsample" in n}
    for block in short:
        values = blocks[block]
        blocks[block] = values[-6:] + values[:-6]  # a convolution's weight and a norm's five
    return [value for values in blocks.values() for value in values]


def test_kernel_width_and_block_of_each_stage() -> None:
    stages = [
        ResNetStage("basic", 5, 48, 1),
        ResNetStage("bottleneck", 3, 96, 2),
        ResNetStage("basic", 7, 512, 1),
    ]
    model = ImageNetResNet(stages, num_classes=10, img_size=32)

    stem = 3 * 64 * 9 + 2 * 64
    first = 25 * 64 * 48 + 25 * 48 * 48 + 64 * 48 + 6 * 48
    out = 4 * 96
    second = 48 * 96 + 9 * 96 * 96 + 96 * out + 48 * out + 4 * 96 + 4 * out
    again = out * 96 + 9 * 96 * 96 + 96 * out + 4 * 96 + 2 * out
    third = 49 * out * 512 + 49 * 512 * 512 + out * 512 + 6 * 512
    assert count_params(model) == stem + first + second + again + third + 512 * 10 + 10


def test_last_map_has_the_teachers_width() -> None:
    narrow = ImageNetResNet(
        [ResNetStage("basic", 3, 64, 1), ResNetStage("basic", 3, 96, 1)], 10, 32
    )
    seen = create_space("imagenet_resnet")  # the default is the width of ResNet-18 and -34

    assert isinstance(narrow.neck, nn.Module) and narrow.fc.in_features == 512
    assert count_params(narrow.neck) == 96 * 512 + 2 * 512
    assert build_network(seen, chosen(1, 1, 1)).fc.in_features == 512
    assert count_params(build_network(seen, chosen(1, 1, 1, 1)).neck) == 0


@pytest.mark.parametrize(
    ("size", "depths", "grid"),
    [
        (224, (1, 1, 1), 14),
        (224, (1, 1, 1, 1), 7),
        (224, (1, 1, 1, 1, 1), 4),
        (96, (1, 1, 1, 1), 3),
        (64, (1, 1, 1, 1), 4),
        (32, (1, 1, 1, 1), 4),
        (8, (1, 1, 1, 1), 4),
    ],
)
def test_last_grid(size: int, depths: tuple[int, ...], grid: int) -> None:
    with torch.device("meta"):
        model = built(chosen(*depths), size)
        features = model.stages(model.maxpool(model.conv1(torch.zeros(2, 3, size, size))))

    assert features.shape[2:] == (grid, grid)


def test_stem() -> None:
    for size, kernel, stride, pools in ((224, 7, 2, True), (64, 3, 2, False), (32, 3, 1, False)):
        model = built(chosen(1, 1, 1, 1), size)
        assert model.conv1.conv.kernel_size == (kernel, kernel)
        assert model.conv1.conv.stride == (stride, stride)
        assert isinstance(model.maxpool, nn.MaxPool2d) is pools


def test_size() -> None:
    a_stage = 2 * 3 * 4 * 6
    assert SPACES["imagenet_resnet"].size == a_stage**3 + a_stage**4 + a_stage**5


def test_no_choices_of_a_stage_that_is_not_there() -> None:
    with pytest.raises(UserError, match="unknown parameter 'block_4'"):
        built(chosen(1, 1, 1, 1) | {"stages": 3})
