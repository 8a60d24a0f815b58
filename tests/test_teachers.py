"""Networks by name and trained weights."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from diswot import files, teachers
from diswot.errors import UserError
from diswot.teachers import TEACHERS


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
    model = teachers.get(name, classes)
    assert sum(p.numel() for p in model.parameters()) == by_hand(blocks, classes)


def test_known_count() -> None:
    assert by_hand(3, 100) == 278_324 and sorted(TEACHERS) == sorted(
        ["resnet20", "resnet32", "resnet44", "resnet56", "resnet110"]
    )


@pytest.mark.parametrize("pixels", [8, 32, 37])
def test_forward(pixels: int) -> None:
    model = teachers.get("resnet20", 7).eval()
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
        teachers.get(name)


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

def a_class():
    return nn.Linear
"""
        )
        return str(place)

    def test_takes_classes_if_it_likes(self, nets: str) -> None:
        made = [teachers.get(f"{nets}:{name}", 7) for name in ("Net", "plain")]
        assert [model.out_features for model in made if isinstance(model, nn.Linear)] == [7, 3]

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
            teachers.get(f"{nets}:{name}", 7)

    def test_builder_reads_the_file_once(self, nets: str) -> None:
        build = teachers.builder(f"{nets}:plain")
        Path(nets).unlink()
        assert build() is not build()


def linear() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def same(one: nn.Module, other: nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


class TestWeights:
    @pytest.mark.parametrize("kind", ["safetensors", "pt", "checkpoint", "parallel", "old"])
    def test_load(self, tmp_path: Path, kind: str) -> None:
        model, other = linear(), linear()
        state = model.state_dict()
        place = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pth")
        if kind == "safetensors":
            files.save_weights(model, place)
        elif kind == "checkpoint":
            torch.save({"state_dict": state, "epoch": 2}, place)
        elif kind == "parallel":
            torch.save({f"module.{name}": value for name, value in state.items()}, place)
        else:
            torch.save(state, place, _use_new_zipfile_serialization=kind != "old")
        teachers.load_weights(other, place)
        assert same(model, other)

    def test_a_network_with_a_part_called_module(self, tmp_path: Path) -> None:
        class Wrapped(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.module = nn.Linear(2, 2)

        model, other = Wrapped(), Wrapped()
        torch.save(model.state_dict(), tmp_path / "w.pt")
        teachers.load_weights(other, str(tmp_path / "w.pt"))
        assert same(model, other)

    def test_wrong_shapes_leave_the_network_alone(self, tmp_path: Path) -> None:
        state = {**linear().state_dict(), "1.weight": torch.ones(5), "1.bias": torch.ones(2)}
        torch.save(state, tmp_path / "w.pt")
        model, before = linear(), linear()
        before.load_state_dict(model.state_dict())
        with pytest.raises(UserError) as caught:
            teachers.load_weights(model, tmp_path / "w.pt")
        expected = "1.bias has the shape (2,), not (4,), 1.weight has the shape (5,), not (4,)"
        assert str(caught.value) == f"{tmp_path / 'w.pt'} does not fit the network: {expected}"
        assert same(model, before)

    @pytest.mark.parametrize(
        ("trained", "named", "message"),
        [
            ("resnet32", "resnet20", "layer1.3.bn1.running_mean too, and 69 more differences"),
            ("resnet20", "resnet32", "it lacks layer1.3.bn1.running_var, and 57 more differences"),
        ],
    )
    def test_another_network(self, tmp_path: Path, trained: str, named: str, message: str) -> None:
        files.save_weights(teachers.get(trained, 10), tmp_path / "w.safetensors")
        with pytest.raises(UserError) as caught:
            teachers.load_weights(teachers.get(named, 10), tmp_path / "w.safetensors")
        assert message in str(caught.value)

    def test_another_number_of_classes(self, tmp_path: Path) -> None:
        files.save_weights(teachers.get("resnet20", 10), tmp_path / "w.safetensors")
        with pytest.raises(UserError, match=r"fc.bias has the shape \(10,\), not \(100,\)"):
            teachers.load_weights(teachers.get("resnet20", 100), tmp_path / "w.safetensors")

    @pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
    def test_absent(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(UserError, match=f"no such weights: .*{name}"):
            teachers.load_weights(linear(), tmp_path / name)
        with pytest.raises(UserError, match="no such weights"):
            teachers.load_weights(linear(), tmp_path)

    @pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
    @pytest.mark.parametrize("content", [b"", b"garbage", b"\xff" * 5000, b"PK\x03\x04"])
    def test_garbage(self, tmp_path: Path, name: str, content: bytes) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError) as caught:
            teachers.load_weights(linear(), tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)

    def test_a_whole_pickled_network_is_refused_and_not_run(self, tmp_path: Path) -> None:
        class Bomb:
            def __reduce__(self) -> tuple[object, tuple[str]]:
                return os.mkdir, (str(tmp_path / "trap"),)

        torch.save({"state_dict": {"a": Bomb()}}, tmp_path / "w.pt")
        with pytest.raises(UserError, match="is no file of tensors"):
            teachers.load_weights(linear(), tmp_path / "w.pt")
        torch.save(linear(), tmp_path / "w.pt")
        with pytest.raises(UserError, match="is no file of tensors"):
            teachers.load_weights(linear(), tmp_path / "w.pt")
        assert not (tmp_path / "trap").exists()

    def test_safetensors_of_others(self, tmp_path: Path) -> None:
        save_file({"a": torch.zeros(1)}, tmp_path / "w.safetensors")
        with pytest.raises(UserError, match="it has a too"):
            teachers.load_weights(linear(), tmp_path / "w.safetensors")
