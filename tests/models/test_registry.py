"""Networks by name and trained weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from diswot.errors import UserError
from diswot.models.registry import TEACHERS, create_teacher, teacher_builder


def by_hand(blocks: int, classes: int) -> int:
    """Weights of a CIFAR ResNet with `blocks` basic blocks a stage: He et al., section 4.2.

    Batch norms have two a channel; a 1x1 convolution with its norm stands in the first block of
    the second and third stages.
    """

    def block(inputs: int, outputs: int) -> int:
        shortcut = inputs * outputs + 2 * outputs if inputs != outputs else 0
        return 9 * inputs * outputs + 9 * outputs * outputs + 4 * outputs + shortcut

    total = 9 * 3 * 16 + 2 * 16
    for inputs, outputs in ((16, 16), (16, 32), (32, 64)):
        total += block(inputs, outputs) + (blocks - 1) * block(outputs, outputs)
    return total + 64 * classes + classes


@pytest.mark.parametrize(
    ("name", "blocks"),
    [("resnet20", 3), ("resnet32", 5), ("resnet44", 7), ("resnet56", 9), ("resnet110", 18)],
)
@pytest.mark.parametrize("classes", [10, 100])
def test_parameters(name: str, blocks: int, classes: int) -> None:
    model = create_teacher(name, classes)
    assert sum(p.numel() for p in model.parameters()) == by_hand(blocks, classes)


def test_known_count() -> None:
    assert by_hand(3, 100) == 278_324 and sorted(TEACHERS) == sorted(
        ["resnet20", "resnet32", "resnet44", "resnet56", "resnet110"]
    )


@pytest.mark.parametrize("pixels", [8, 32, 37])
def test_forward(pixels: int) -> None:
    model = create_teacher("resnet20", 7).eval()
    assert model(torch.zeros(2, 3, pixels, pixels)).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("resnet57", "resnet56"),
        ("Resnet56", "resnet56"),
        ("vit", "known: .*resnet110.*timm:resnet50"),
        ("", "known"),
        ("nets.py", "name a function in nets.py, as nets.py:function"),
        ("nets.py:", "no such file: nets.py"),
    ],
)
def test_unknown(name: str, hint: str) -> None:
    with pytest.raises(UserError, match=hint):
        create_teacher(name)


class TestUsersOwn:
    @pytest.fixture
    def nets(self, tmp_path: Path) -> str:
        place = tmp_path / "nets.py"
        place.write_text(
            """
from torch import nn

class Net(nn.Linear):
    def __init__(self, classes):
        super().__init__(4, classes)

def plain():
    return nn.Linear(4, 3)

def fails(classes):
    raise ValueError("first line\\nsecond line")

def needs(more):
    return nn.Linear(4, more)

def number():
    return 3

def sized(img_size=32):
    return nn.Linear(img_size, 3)

def a_class():
    return nn.Linear
"""
        )
        return str(place)

    def test_takes_classes_if_it_likes(self, nets: str) -> None:
        made = [create_teacher(f"{nets}:{name}", 7) for name in ("Net", "plain")]
        assert [model.out_features for model in made if isinstance(model, nn.Linear)] == [7, 3]

    def test_keeps_its_own_size(self, nets: str) -> None:
        made = [create_teacher(f"{nets}:sized", 7, size) for size in (None, 8)]
        assert [model.in_features for model in made if isinstance(model, nn.Linear)] == [32, 8]

    def test_under_a_detector(self, tmp_path: Path) -> None:
        (tmp_path / "own.py").write_text(
            "from diswot.models.registry import create_teacher\n\n\n"
            "def net(num_classes):\n    return create_teacher('resnet20', num_classes)\n"
        )
        model = create_teacher(f"detector:{tmp_path}/own.py:net+fcos", 7, 64).eval()
        assert len(model(torch.zeros(2, 3, 64, 64))) == 2

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("fails", r"fails fails: ValueError: first line second line \(line 12\)$"),
            ("needs", r"needs fails: TypeError: needs\(\) missing 1 .*'more'$"),
            ("number", "must return a torch module, not a int"),
            ("a_class", "must return a torch module, not a type"),
        ],
    )
    def test_failing(self, nets: str, name: str, message: str) -> None:
        with pytest.raises(UserError, match=message):
            create_teacher(f"{nets}:{name}", 7)

    def test_builder_reads_the_file_once(self, nets: str) -> None:
        build = teacher_builder(f"{nets}:plain")
        Path(nets).unlink()
        assert build() is not build()
