from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from diswot.costs.counts import count_params
from diswot.errors import UserError
from diswot.models.initialization import fresh
from diswot.models.registry import create_teacher
from diswot.models.weightless import Weightless
from diswot.spaces import subnet
from diswot.spaces.registry import Params, build_network, create_space
from diswot.spaces.trials import EnumeratingTrial, FixedParamsTrial

SMALL: Params = {"depth_1": 1, "width_1": 0.5, "depth_2": 2, "width_2": 0.25, "depth_3": 3}
SMALL |= {"width_3": 1.0}
VIT = """
from timm.models.vision_transformer import VisionTransformer

def vit(num_classes, img_size):
    return VisionTransformer(
        img_size, 8, num_classes=num_classes, embed_dim=32, depth=4, num_heads=4
    )
"""


@pytest.fixture
def vit(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(VIT)
    return f"{tmp_path}/mine.py:vit"


def largest(name: str, size: int = 32) -> Params:
    trial = EnumeratingTrial(last=True)
    with Weightless():
        create_space(name, 10, size)(trial)
    return trial.params


def test_choices() -> None:
    trial = EnumeratingTrial()
    with Weightless():
        create_space("subnet:torchvision:mobilenet_v2", 10, 32)(trial)
    depths = {n: d.high for n, d in trial.distributions.items() if n.startswith("depth")}

    assert depths == {"depth_2": 2, "depth_3": 3, "depth_4": 4, "depth_5": 3, "depth_6": 3}
    assert [n for n in trial.params if n.startswith("width")] == [f"width_{i}" for i in range(1, 8)]
    assert trial.distributions["width_1"].choices == (0.25, 0.5, 0.75, 1.0)


def test_parameters_by_hand() -> None:
    """Widths 8, 8, 64: a block of w channels has two convolutions of 9 w^2 and 4 w of norms."""
    stem, first, second = 3 * 8 * 9 + 16, 2 * (576 + 16), 2 * (576 + 16) + 8 * 8 + 16 + 2 * 592
    third = 9 * 8 * 64 + 9 * 64**2 + 8 * 64 + 3 * 128 + 2 * 2 * (9 * 64**2 + 128)
    model = build_network(create_space("subnet:resnet20", 10, 32), SMALL)

    assert count_params(model) == stem + first + second + third + 650 == 194_850


@pytest.mark.parametrize(
    ("name", "size"),
    [("resnet20", 32), ("torchvision:resnet18", 32), ("torchvision:mobilenet_v2", 32)],
)
@pytest.mark.parametrize("init", ["default", "kaiming"])
def test_full_size_is_the_teacher_to_the_bit(name: str, size: int, init: str) -> None:
    space = create_space(f"subnet:{name}", 10, size)
    student = fresh(partial(build_network, space, largest(f"subnet:{name}")), init, 0).eval()
    teacher = fresh(partial(create_teacher, name, 10, size), init, 0).eval()

    ours, theirs = student.state_dict(), teacher.state_dict()
    assert list(ours) == list(theirs) and all(torch.equal(ours[n], theirs[n]) for n in ours)
    with torch.no_grad():
        images = torch.randn(2, 3, size, size)
        assert torch.equal(student(images), teacher(images))


def test_weights_of_a_trained_teacher() -> None:
    teacher = create_teacher("resnet20", 10, 32)
    before = teacher.conv1.weight.clone()
    model = subnet.from_teacher(teacher, SMALL, "resnet20", 10, 32)
    half, quarter = [0, 2, 4, 6, 8, 10, 12, 14], [0, 4, 8, 12, 16, 20, 24, 28]

    assert torch.equal(model.conv1.weight, before[half])
    assert torch.equal(teacher.conv1.weight, before)
    last = teacher.layer2[2].conv2.weight
    assert torch.equal(model.layer2[1].conv2.weight, last[quarter][:, quarter])


def test_transformer_is_one_built_so(vit: str) -> None:
    space = create_space(f"subnet:{vit}", 10, 32)
    model = build_network(space, {"depth_1": 2, "width_1": 0.5}).eval()
    wanted = VisionTransformer(32, 8, num_classes=10, embed_dim=16, depth=2, num_heads=2).eval()

    wanted.load_state_dict(model.state_dict())
    with torch.no_grad():
        images = torch.randn(2, 3, 32, 32)
        assert torch.equal(model(images), wanted(images))


def test_whole_heads_are_kept(vit: str) -> None:
    """Heads 0 and 2 of 4, of 8 features each; of q, of k and of v, which follow each other."""
    teacher = create_teacher(vit, 10, 32)
    model = subnet.from_teacher(teacher, {"depth_1": 4, "width_1": 0.5}, vit, 10, 32)
    features = [*range(8), *range(16, 24)]
    rows = [part * 32 + i for part in range(3) for i in features]
    stream = list(range(0, 32, 2))

    for block, full in zip(model.blocks, teacher.blocks, strict=True):
        assert torch.equal(block.attn.qkv.weight, full.attn.qkv.weight[rows][:, stream])
        assert torch.equal(block.attn.proj.weight, full.attn.proj.weight[stream][:, features])
    assert torch.equal(model.pos_embed, teacher.pos_embed[:, :, stream])


def test_full_transformer_is_the_teacher(vit: str) -> None:
    params = largest(f"subnet:{vit}")
    student = fresh(
        partial(build_network, create_space(f"subnet:{vit}", 10, 32), params), "default", 0
    )
    teacher = fresh(partial(create_teacher, vit, 10, 32), "default", 0)

    assert params == {"depth_1": 4, "width_1": 1.0}
    assert all(torch.equal(v, teacher.state_dict()[n]) for n, v in student.state_dict().items())


def test_meta_device_gives_the_shapes() -> None:
    space = create_space("subnet:resnet20", 10, 32)
    with Weightless():
        model = space(FixedParamsTrial(SMALL))

    assert all(value.is_meta for value in model.state_dict().values())
    assert count_params(model) == 194_850


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("subnet", "subnet needs a teacher, such as subnet:resnet56"),
        ("subnet:", "unknown teacher ''"),
        ("subnet:resnet21", "unknown teacher 'resnet21'; did you mean resnet32 or resnet20"),
        ("subnet:timm:resnet19", "unknown network of timm 'resnet19'"),
        ("subnet:nowhere.py:net", "no such file: nowhere.py"),
    ],
)
def test_mistakes(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        create_space(name)
    assert "\n" not in str(error.value)
