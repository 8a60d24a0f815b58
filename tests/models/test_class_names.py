"""A teacher with other classes than the data."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from toys import CLASSES, ClassToken, LinearHead, ScaledHead, batch, seeded

from diswot.errors import UserError
from diswot.models.class_names import match_classes, read_class_names, select_classes
from diswot.models.registry import create_teacher


def test_names_are_read(tmp_path: Path) -> None:
    path = tmp_path / "classes.csv"
    path.write_text('\ufefftench\n"drake, male",duck\n great grey owl , \nowl,Strix\n', "utf-8")
    assert read_class_names(path) == [
        ("tench",),
        ("duck",),
        ("great grey owl",),
        ("Strix",),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [("a\n\nb\n", "line 2 names no class"), ("", "line 1 names no class"), ("a\n,\n", "line 2")],
)
def test_lines_without_a_class(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "classes.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_class_names(tmp_path / "classes.csv")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*none.csv: No such file"):
        read_class_names(tmp_path / "none.csv")
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"cannot read .*bytes.csv"):
        read_class_names(tmp_path / "bytes.csv")


def test_classes_are_matched_by_name() -> None:
    teacher = [("Great grey-owl",), ("n01440764", "tench", "Tinca tinca"), ("duck", "Duck")]
    assert match_classes(teacher, ["duck", "great_grey_owl"]) == [2, 0]
    assert match_classes(teacher, ["n01440764", "cat", "Duck"]) == [1, -1, 2]
    assert match_classes(teacher, ["cat", "dog"]) == [-1, -1]
    with pytest.raises(UserError, match="crane is the name of several of the teacher's classes"):
        match_classes([("crane", "a bird"), ("crane", "a machine")], ["crane"])


@pytest.mark.parametrize("build", [LinearHead, ClassToken])
def test_the_logits_are_those_that_are_kept(build: type[nn.Module]) -> None:
    model, (images, _) = seeded(build).eval(), batch()
    before = model(images)
    select_classes(model.train(), [3, 0], (3, 8, 8))
    assert model.training
    assert torch.allclose(model.eval()(images), before[:, [3, 0]], atol=1e-6)
    assert CLASSES == 5 and all(w.requires_grad for w in model.parameters())


@pytest.mark.parametrize("name", ["lraspp_mobilenet_v3_large", "fcn_resnet50"])
def test_the_logits_of_pixels(name: str) -> None:
    """LR-ASPP has two layers of logits, which it adds."""
    model, images = create_teacher(f"torchvision:{name}", CLASSES), torch.randn(2, 3, 64, 64)
    before = model.eval()(images)["out"]
    select_classes(model, [3, 0], (3, 64, 64))
    assert torch.allclose(model(images)["out"], before[:, [3, 0]], atol=1e-4)


def test_statistics_are_left_alone() -> None:
    model = seeded(LinearHead).train()
    before = {name: value.clone() for name, value in model.named_buffers()}
    select_classes(model, [1], (3, 8, 8))
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())


def test_a_network_without_a_linear_classifier() -> None:
    with pytest.raises(UserError, match="not the output of a linear layer"):
        select_classes(seeded(ScaledHead), [0], (3, 8, 8))
