"""Trained teachers, and how their classes are matched with those of the data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Run
from data.pictures import folder
from tiny_training import digits
from toys import LinearHead, seeded

from diswot.cli import inputs
from diswot.cli.options import TeacherOptions
from diswot.cli.teachers import matched_teacher
from diswot.data.dataset import Dataset, Split
from diswot.errors import UserError
from diswot.models import registry
from diswot.models.preprocessing import InputConfig
from diswot.models.resized import ResizedInput
from diswot.utils.state_dicts import save_weights

NET = TeacherOptions("net", pretrained=True)
IMAGES = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that sets what a library says of its trained network of five classes."""
    monkeypatch.setattr(inputs, "built_teacher", lambda *given, **more: seeded(LinearHead).eval())

    def says(*classes: str, img_size: int | None = None) -> None:
        named = tuple((name,) for name in classes) or None
        config = InputConfig(5, img_size, classes=named)
        monkeypatch.setattr(registry, "input_config", lambda name, pretrained: config)

    return says


def test_names_of_the_library_order_the_outputs(known: Any) -> None:
    known("4", "3", "2", "1", "0")
    teacher = matched_teacher(NET, digits())
    assert (teacher.classes, teacher.lines) == (None, ())
    plain = seeded(LinearHead).eval()(IMAGES)
    assert torch.allclose(teacher.model(IMAGES), plain.flip(1), atol=1e-6)


def test_some_classes_match(known: Any) -> None:
    known("cat", "3", "dog", "1", "cow")
    teacher = matched_teacher(NET, digits())
    assert teacher.classes == (1, 3)
    assert teacher.lines == (
        "the teacher has 2 of the 5 classes of the data (40%), not 0 for one: the others get no "
        "soft label",
    )
    plain = seeded(LinearHead).eval()(IMAGES)
    assert torch.allclose(teacher.model(IMAGES), plain[:, [3, 1]], atol=1e-6)


@pytest.mark.parametrize("names", [(), ("a", "b", "c", "d", "e")])
def test_as_many_classes_without_a_common_name_are_the_same(known: Any, names: Any) -> None:
    """A line says so if the library has names."""
    known(*names)
    teacher = matched_teacher(NET, digits())
    assert teacher.classes is None and len(teacher.lines) == bool(names)
    assert all("they count in the order of the data" in line for line in teacher.lines)


@pytest.mark.parametrize("names", [(), ("a", "b", "c", "d", "e")])
def test_no_class_matches(known: Any, names: Any, tmp_path: Path) -> None:
    known(*names)
    data = replace(digits(), classes=digits().classes[:4])
    teacher = matched_teacher(NET, data)
    assert teacher.classes == (-1,) * 5
    assert teacher.lines[0].startswith(
        "none of the 5 classes of the teacher is a class of the data"
    )
    (tmp_path / "names.csv").write_text("v\nw\nx\ny\nz\n")  # named by the user, and none is here
    named = tmp_path / "names.csv"
    assert matched_teacher(NET, digits(), classes=named).classes == ((-1,) * 5)


def test_a_file_of_too_few_classes(known: Any, tmp_path: Path) -> None:
    known()
    (tmp_path / "names.csv").write_text("0\n1\n")
    with pytest.raises(UserError, match=r"was trained for 5 classes, and .*names.csv names 2"):
        matched_teacher(NET, digits(), classes=tmp_path / "names.csv")


def test_the_size_of_the_trained_weights(known: Any) -> None:
    known(img_size=16)
    teacher = matched_teacher(NET, digits())
    assert isinstance(teacher.model, ResizedInput) and teacher.model.size == 16
    assert teacher.lines == (
        "the teacher sees images of 16 x 16 pixels, the student of 8 x 8 (--teacher-image-size)",
    )
    for pretrained, size in ((True, 8), (False, None)):  # as the user says, or as the data is
        teacher = matched_teacher(TeacherOptions("net", pretrained=pretrained), digits(), size=size)
        assert isinstance(teacher.model, LinearHead) and teacher.lines == ()
    named = matched_teacher(TeacherOptions("net"), digits(), size=12).model
    assert isinstance(named, ResizedInput) and named.size == 12


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that makes a teacher of five classes in the folder of its training."""
    monkeypatch.setattr(inputs, "built_teacher", lambda *given, **more: seeded(LinearHead).eval())

    def trained(*classes: str) -> TeacherOptions:
        facts = {"class_names": list(classes), "result": {}} if classes else {"result": {}}
        (tmp_path / "trained.json").write_text(json.dumps(facts))
        return TeacherOptions("resnet20", tmp_path / "student.safetensors")

    return trained


def test_classes_that_a_training_recorded_are_compared_by_name(weights: Any) -> None:
    plain = seeded(LinearHead).eval()(IMAGES)
    teacher = matched_teacher(weights("4", "3", "2", "1", "0"), digits())
    assert (teacher.classes, teacher.lines) == (None, ())
    assert torch.allclose(teacher.model(IMAGES), plain.flip(1), atol=1e-6)

    teacher = matched_teacher(weights("cat", "3", "dog", "1", "cow"), digits())
    assert teacher.classes == (1, 3)
    assert teacher.lines[0].startswith("the teacher has 2 of the 5 classes of the data (40%)")

    teacher = matched_teacher(weights("a", "b", "c", "d", "e"), digits())
    assert teacher.classes == (-1,) * 5
    assert teacher.lines[0].startswith(
        "none of the 5 classes of the teacher is a class of the data"
    )


def test_classes_of_the_search_are_those_of_its_teacher(weights: Any) -> None:
    """Where the training recorded none."""
    own = ("a", "b", "c", "d", "e")
    teacher = matched_teacher(weights(), digits(), own=own)
    assert teacher.classes == (-1,) * 5 and teacher.lines
    assert matched_teacher(weights(), digits(), own=None).classes is None
    assert matched_teacher(weights(*"01234"), digits(), own=own).classes is None


def test_other_data_than_those_of_the_search(run: Run, tmp_path: Path) -> None:
    """The names of the classes are compared, though their number is the same."""
    folder(tmp_path / "ab", {"ant": 10, "bee": 10})
    folder(tmp_path / "xy", {"x": 10, "y": 10})
    size = "--image-size 8 --batch-size 4"
    save_weights(registry.create_teacher("resnet20", 2, 8), tmp_path / "w.safetensors")
    search = f"search --teacher resnet20 --teacher-weights {tmp_path}/w.safetensors {size} --quiet"
    line = f"{search} --trials 1 --sampler random --proxy params --data {tmp_path}/ab"
    assert run(f"{line} --out {tmp_path}/s").status == 0
    said = run(f"distill {tmp_path}/s --data {tmp_path}/xy {size} --epochs 1 --losses kd").mistake()
    assert said.startswith("kd needs 2 classes that teacher and data share, and they share 0")


def test_a_scoring_teacher_of_other_classes_is_named(weights: Any) -> None:
    for names, which in (
        (("4", "3", "2", "1", "0"), "in another order"),
        (tuple("0123x"), "such as x"),
    ):
        named = inputs.NamedTeacher(weights(*names), digits(), True)
        assert named.remarks() == [
            f"the teacher was trained on other classes than the data's, {which}"
        ]
    for names in (("0", "1", "2", "3", "4"), ()):
        assert inputs.NamedTeacher(weights(*names), digits(), True).remarks() == []


def boxes(*classes: str) -> Dataset:
    """Return a data set of two images of noise with a box each."""

    def read(wanted: Sequence[int]) -> torch.Tensor:
        return torch.zeros(len(wanted), 3, 64, 64, dtype=torch.uint8)

    def targets(wanted: Sequence[int]) -> torch.Tensor:
        box = torch.tensor([4.0, 4.0, 40.0, 50.0, 0.0, 0.0])
        return box.expand(len(wanted), 1, 6).clone()

    split = Split(torch.zeros(2, dtype=torch.int64), read, targets)
    look = (0.5,) * 3
    return Dataset("boxes", classes, 64, look, look, split, split, task="detection")


DETECTOR = "torchvision:ssdlite320_mobilenet_v3_large"


def test_classes_of_a_detector_are_matched_by_name(tmp_path: Path) -> None:
    """The first output of each anchor is the background's."""
    trained = registry.create_teacher(DETECTOR, 3, 64)
    save_weights(trained, tmp_path / "w.safetensors")
    teacher = TeacherOptions(DETECTOR, tmp_path / "w.safetensors")
    found = matched_teacher(teacher, boxes("c", "a"), own=["a", "b", "c"])
    assert found.classes is None and found.lines == ()
    name = "head.classification_head.module_list.0.1.weight"
    given, own = trained.get_parameter(name), found.model.get_parameter(name)
    assert torch.equal(own.view(6, 3, -1), given.view(6, 4, -1)[:, [0, 3, 1]])


def test_a_detector_sees_images_of_one_size() -> None:
    message = "a detector sees images of the data's size, .* 64 pixels high, not 96"
    with pytest.raises(UserError, match=message):
        matched_teacher(TeacherOptions(DETECTOR), boxes("a"), size=96)
