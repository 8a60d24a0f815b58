"""Training of detectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from detectors import CLASSES, SIZE, faster_rcnn, fcos, ssd
from squares import RECIPE, few_squares, seeded, squares
from tiny_training import measure_result
from torch import Tensor, nn

from diswot.data.dataset import Dataset
from diswot.errors import UserError
from diswot.observation.detectors import run_detector
from diswot.training.distill import distill
from diswot.training.doctor import diagnose
from diswot.training.evaluation import check_fit, check_gradient

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data() -> Dataset:
    return squares(48, 12)


@pytest.fixture(scope="module")
def few() -> Dataset:
    return few_squares()


@pytest.fixture(scope="module")
def teacher(data: Dataset) -> nn.Module:
    return distill(None, seeded(width=8), data, replace(RECIPE, epochs=5)).student


def test_it_learns(data: Dataset, teacher: nn.Module) -> None:
    """An untrained detector finds next to nothing."""
    assert measure_result(seeded(width=8), data) < 2
    assert measure_result(teacher, data) > 15


@pytest.mark.parametrize("build", [fcos, ssd, faster_rcnn])
def test_losses_have_the_names_of_the_detector(
    few: Dataset, build: Callable[..., nn.Module]
) -> None:
    """Their sum with the weight of the recipe is the loss."""
    student = seeded(build)
    images, boxes = torch.zeros(2, 3, *SIZE), torch.zeros(2, 1, 6)
    boxes[..., 2:4] = 20
    names = run_detector(student, images, boxes).keys()
    made = distill(None, student, few, replace(RECIPE, epochs=1, cross_entropy=0.5))
    row = made.history[-1]
    rest = {"epoch", "loss", "test_map", "test_map50", "lr", "seconds", "images_per_second"}
    assert row.keys() == rest | names
    assert row["loss"] == pytest.approx(sum(row[name] for name in names))
    assert made.test_map == made.test_result == pytest.approx(measure_result(student, few))
    assert row["test_map50"] >= row["test_map"] and "test mAP" in repr(made)
    assert list(made.by_class) == ["red", "green", "blue", "mean", "mean at an IoU of 0.5"]
    assert made.by_class["mean"] == made.test_map


@pytest.mark.parametrize(
    "losses", [{"at": 1.0}, {"cwd": 0.1, "mgd": 1.0}, {"kd": 1.0, "semantic_class": 1.0}]
)
def test_losses_teach_detectors(few: Dataset, teacher: nn.Module, losses: dict[str, float]) -> None:
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    row = distill(teacher, seeded(), few, replace(RECIPE, epochs=1), losses=losses).history[-1]
    own = "classification", "bbox_regression", "bbox_ctrness"
    assert row["loss"] == pytest.approx(sum(row[name] for name in (*own, *losses)))
    assert all(row[name] > 0 for name in losses)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_held_and_streamed_images_give_one_curve(few: Dataset) -> None:
    curves = [
        [row["loss"] for row in distill(None, seeded(), few, RECIPE, hold=hold).history]
        for hold in (True, False)
    ]
    assert curves[0] == pytest.approx(curves[1])


def test_a_training_is_resumed(few: Dataset, tmp_path: Path) -> None:
    whole = distill(None, seeded(), few, RECIPE, out=tmp_path / "whole")
    calls = 0

    def stop(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distill(None, seeded(), few, RECIPE, out=tmp_path / "part", on_step=stop)
    resumed = distill(None, seeded(), few, RECIPE, out=tmp_path / "part", resume=True)
    assert len(resumed.history) == 2 and list(resumed.by_class) == list(whole.by_class)
    again = distill(None, seeded(), few, RECIPE, out=tmp_path / "part", resume=True)
    assert again.by_class == pytest.approx(whole.by_class, nan_ok=True)
    timed = "seconds", "images_per_second"
    rows = [
        {k: v for k, v in each.history[-1].items() if k not in timed} for each in (resumed, whole)
    ]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("setting", [{"mixup": 0.2}, {"cutmix": 1.0}, {"randaugment": 5}])
def test_augmentation_of_whole_images_is_refused(few: Dataset, setting: dict[str, float]) -> None:
    with pytest.raises(UserError, match="are for one label an image"):
        distill(None, seeded(), few, replace(RECIPE, **setting))


@pytest.mark.parametrize(
    "setting", [{"label_smoothing": 0.1}, {"cache": True, "flip": False}, {"compile": True}]
)
def test_settings_of_logits_are_refused(few: Dataset, setting: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="is for networks that return logits, not for detectors"):
        distill(None, seeded(), few, replace(RECIPE, **setting))


def test_a_teacher_of_other_classes_teaches_by_maps_alone(few: Dataset, teacher: nn.Module) -> None:
    how = replace(RECIPE, epochs=1)
    with pytest.raises(UserError, match="kd needs a detector with the classes of the data"):
        distill(teacher, seeded(), few, how, losses={"kd": 1.0}, teacher_classes=(0, 2, -1))
    made = distill(teacher, seeded(), few, how, losses={"at": 1.0}, teacher_classes=(0, 2, -1))
    assert made.history[-1]["at"] > 0


def test_an_average_of_the_weights_is_tested(few: Dataset) -> None:
    made = distill(None, seeded(), few, replace(RECIPE, ema=0.5, views=2))
    assert made.test_map == pytest.approx(measure_result(made.student, few), nan_ok=True)


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, images: object, targets: object = None) -> Tensor:
        return self.weight.expand(2, CLASSES)


class Detached(nn.Module):
    """A detector whose losses have no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = seeded()

    def forward(self, images: object, targets: object = None) -> object:
        self.inner.training = self.training
        with torch.no_grad():
            return self.inner(images, targets)


def test_a_network_that_fits(few: Dataset) -> None:
    model = seeded().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    check_fit("student", model, few, CPU)
    check_gradient(model, few, CPU)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.training and all(weight.grad is None for weight in model.parameters())


def test_a_network_that_does_not_fit(few: Dataset) -> None:
    with pytest.raises(UserError, match="the teacher gives Tensor for 2 images, and squares needs"):
        check_fit("teacher", Classifier().eval(), few, CPU)
    two = replace(few, classes=("red", "green"))
    with pytest.raises(UserError, match="outputs for 4 classes, the background included, and"):
        check_fit("student", seeded().eval(), two, CPU)
    with pytest.raises(UserError, match="must return a dict of losses"):
        check_gradient(Classifier().eval(), few, CPU)
    with pytest.raises(UserError, match="its outputs have no gradient, as under"):
        check_gradient(Detached().eval(), few, CPU)


def test_the_doctor_looks_at_detectors(few: Dataset, teacher: nn.Module) -> None:
    found = {
        each.check: each
        for each in diagnose(teacher, seeded(), few, replace(RECIPE, losses={"at": 1.0}))
    }
    assert (
        found["teacher's result"].level == "good"
        and "on 4 images" in found["teacher's result"].text
    )
    assert "times that of the loss of the labels" in found["loss scale"].text
    assert "training images a class" in found["label balance"].text
    assert found["sizes"].level == "good"
    untaught = diagnose(seeded(width=8), seeded(), few, replace(RECIPE, losses={"kd": 1.0}))
    assert [each.level for each in untaught if each.check == "teacher's result"] == ["warning"]
