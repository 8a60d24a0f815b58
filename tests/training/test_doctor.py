"""Broken set-ups, one a test, and a sound one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
import torch
from tiny_training import LONG, digits, split_of, states_equal, teacher, wide_teacher
from torch import Tensor, nn
from toys import CLASSES, LinearHead, seeded

from diswot.data.dataset import UNLABELLED, Dataset, Split, whole
from diswot.errors import UserError
from diswot.models.class_names import select_classes
from diswot.spaces.cifar_resnet import CifarResNet
from diswot.training.data_checks import check_labels
from diswot.training.doctor import diagnose
from diswot.training.finding import Finding, draw_sample
from diswot.training.loss_checks import entropy
from diswot.training.recipe import Recipe

RECIPE = replace(LONG, losses={"kd": 1.0, "at": 1.0})


def found(
    master: nn.Module | None = None,
    student: nn.Module | None = None,
    data: Dataset | None = None,
    recipe: Recipe = RECIPE,
) -> dict[str, Finding]:
    """The findings by check; of several the worst."""
    order = ("good", "warning", "wrong")
    results = diagnose(master or teacher(), student or seeded(LinearHead), data or digits(), recipe)
    assert all(bool(each.remedy) == (each.level != "good") and each.text for each in results)
    return {each.check: each for each in sorted(results, key=lambda each: order.index(each.level))}


def bad(findings: dict[str, Finding]) -> dict[str, str]:
    return {name: each.level for name, each in findings.items() if each.level != "good"}


def changed(
    images: Callable[[Tensor], Tensor] = lambda images: images,
    train: Callable[[Tensor], Tensor] = lambda labels: labels,
    test: Callable[[Tensor], Tensor] = lambda labels: labels,
) -> Dataset:
    """The digits with other images or labels."""
    splits: list[Split] = []
    for split, labels in ((digits().train, train), (digits().test, test)):
        assert split is not None
        pixels, given = whole(split)
        splits.append(split_of(images(pixels), labels(given.clone())))
    return replace(digits(), train=splits[0], test=splits[1])


def test_a_sound_one() -> None:
    master, student = teacher().train(), seeded(LinearHead)
    before = copy.deepcopy((master, student))
    findings = found(master, student)
    assert bad(findings) == {}
    assert findings.keys() == {
        "label balance", "image range", "teacher's accuracy", "class order", "normalisation",
        "augmentation", "temperature", "adapters", "loss scale", "sizes",
    }  # fmt: skip
    assert all(states_equal(*pair) for pair in zip(before, (master, student), strict=True))
    assert master.training and all(weight.requires_grad for weight in master.parameters())


def test_an_untrained_teacher() -> None:
    findings = found(seeded(LinearHead, 3))
    assert findings["teacher's accuracy"].level == "wrong"
    assert "no better than guessing" in findings["teacher's accuracy"].text


def test_an_overfitted_teacher() -> None:
    def spoiled(labels: Tensor) -> Tensor:
        labels[::2] = (labels[::2] + torch.arange(50) % 4 + 1) % CLASSES
        return labels

    finding = found(data=changed(test=spoiled))["teacher's accuracy"]
    assert finding.level == "warning" and "of training images" in finding.text


def test_another_order_of_the_classes() -> None:
    turn = torch.tensor([0, 2, 1, 4, 3])
    findings = found(data=changed(train=lambda y: turn[y], test=lambda y: turn[y]))
    finding = findings["class order"]
    assert finding.level == "wrong" and "output 1 is 2, not 1" in finding.text
    assert findings["normalisation"].level == "good"


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1 / 255), (0.9, 0.05)])
def test_another_normalisation(mean: float, std: float) -> None:
    data = replace(digits(), mean=(mean,) * 3, std=(std,) * 3)
    finding = found(data=data)["normalisation"]
    assert finding.level == "wrong" and finding.remedy.startswith("--mean 0.")
    # What the remedy names is better.
    values = finding.remedy.removeprefix("--mean ").split(" --std ")
    mean_, std_ = (tuple(float(v) for v in text.split(",")) for text in values)
    assert found(data=replace(data, mean=mean_, std=std_))["normalisation"].level == "good"


class Colour(nn.Module):
    """Class 0 where red is stronger than blue, class 1 elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(4.0))

    def forward(self, images: Tensor) -> Tensor:
        red, _, blue = images.mean((2, 3)).unbind(1)
        return self.scale * torch.stack((red - blue, blue - red), 1)


@pytest.mark.parametrize("turned", [False, True])
def test_channels_from_blue_to_red(turned: bool) -> None:
    images = torch.randint(0, 100, (60, 3, 4, 4), generator=torch.Generator().manual_seed(0))
    labels = torch.arange(60) % 2
    images[labels == 0, 2 if turned else 0] += 100
    images[labels == 1, 0 if turned else 2] += 100
    split = split_of(images.to(torch.uint8), labels)
    data = Dataset("colours", ("red", "blue"), 4, (0.5,) * 3, (0.25,) * 3, split, split)
    student = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    recipe = replace(RECIPE, losses={"kd": 1.0}, batch_size=20)
    findings = found(Colour(), student, data, recipe)
    if turned:  # with two classes, another order of the classes explains it as well
        assert findings["normalisation"].remedy.startswith("reverse the input channels")
        assert findings["class order"].level == findings["normalisation"].level == "wrong"
    else:
        assert findings["class order"].level == findings["normalisation"].level == "good"


def test_images_from_0_to_1() -> None:
    finding = found(data=changed(images=lambda pixels: pixels // 255))["image range"]
    assert (finding.level, finding.text) == ("wrong", "no pixel is brighter than 1 of 255")


def test_images_of_a_single_colour() -> None:
    def flat(pixels: Tensor) -> Tensor:
        return pixels[:, :1, :1, :1].expand_as(pixels) + 50

    finding = found(data=changed(images=flat))["image range"]
    assert finding.level == "wrong" and "100% of the images have a single colour" in finding.text


def test_pixels_far_from_the_usual_range() -> None:
    findings = found(data=replace(digits(), mean=(0.0,) * 3, std=(1 / 255,) * 3))
    assert findings["image range"].level == "warning"
    assert "--mean 0.3" in findings["image range"].remedy


def test_a_class_without_images() -> None:
    finding = found(data=changed(train=lambda y: torch.where(y == 3, 0, y)))["label balance"]
    text = "1 of 5 classes have no training images, such as 3"
    assert (finding.level, finding.text) == ("wrong", text)
    finding = found(data=changed(test=lambda y: torch.where(y == 4, 0, y)))["label balance"]
    assert finding.text == "1 of 5 classes have no test images, such as 4"


def test_a_rare_class() -> None:
    def rare(labels: Tensor) -> Tensor:
        labels[(labels == 2).nonzero().flatten()[3:]] = 0
        return labels

    finding = found(data=changed(train=rare))["label balance"]
    assert finding.level == "warning" and "rarest 2, most frequent 0" in finding.text


@pytest.mark.parametrize("loss", ["kd", "kd_standardised", "dkd"])
def test_a_temperature_that_leaves_nothing(loss: str) -> None:
    recipe = replace(RECIPE, losses={loss: 1.0})
    finding = found(recipe=replace(recipe, temperature=1000.0))["temperature"]
    assert finding.level == "warning" and "all classes look alike" in finding.text
    better = float(finding.remedy.rpartition(" ")[2])
    assert found(recipe=replace(recipe, temperature=better))["temperature"].level == "good"


def test_outputs_that_are_labels() -> None:
    sure = teacher()
    with torch.no_grad():
        sure.fc.weight *= 1e4
    finding = found(sure)["temperature"]
    assert finding.level == "warning" and "no more than labels" in finding.text
    # Standardised, their scale does not matter.
    recipe = replace(RECIPE, losses={"kd_standardised": 1.0})
    assert found(sure, recipe=recipe)["temperature"].level == "good"


def test_entropy() -> None:
    assert entropy(torch.zeros(3, 7)) == pytest.approx(1)
    assert entropy(1e4 * torch.eye(4)) == pytest.approx(0)
    half = torch.tensor([[0.0, 0, -1e9, -1e9]])
    assert entropy(half) == pytest.approx(0.5)


@pytest.mark.parametrize("weight", [1e5, 1e-5])
def test_a_loss_of_another_scale(weight: float) -> None:
    finding = found(recipe=replace(RECIPE, losses={"kd": 1.0, "at": weight}))["loss scale"]
    assert finding.level == "warning" and f"{weight:g} at is" in finding.text
    better = float(finding.remedy.rpartition(":")[2])
    recipe = replace(RECIPE, losses={"at": better})
    assert "gradient 1 times" in found(recipe=recipe)["loss scale"].text


def test_a_loss_that_cannot_be_computed() -> None:
    broken = seeded(LinearHead)
    with torch.no_grad():
        broken.fc.bias[0] = 3e38  # finite, and its square is not
    finding = found(student=broken)["loss scale"]
    assert finding.level == "wrong" and "kd" in finding.text and "not finite" in finding.text


def test_no_loss_to_the_teacher() -> None:
    assert found(recipe=replace(RECIPE, losses={}))["loss scale"].remedy == (
        "name some: --losses kd"
    )


def test_widths_that_do_not_fit_and_adapters() -> None:
    student = CifarResNet((1, 1, 1), CLASSES, (8, 16, 24))
    recipe = replace(RECIPE, losses={"semantic": 1.0})
    finding = found(wide_teacher(), student, recipe=recipe)["adapters"]
    assert finding.level == "wrong" and "semantic needs" in finding.text
    recipe = replace(RECIPE, losses={"fitnet": 1.0, "kd": 1.0})
    finding = found(wide_teacher(), student, recipe=recipe)["adapters"]
    assert (finding.level, finding.text) == ("good", f"fitnet learns {17 * 32} parameters")


def test_augmentation_that_hides_the_images() -> None:
    finding = found(recipe=replace(RECIPE, cutout=16))["augmentation"]
    assert finding.level == "warning" and "cutout" in finding.remedy


def test_the_student_is_the_larger_one() -> None:
    finding = found(student=seeded(lambda: CifarResNet((1, 1, 1), CLASSES)))["sizes"]
    assert (finding.level, finding.remedy) == ("warning", "exchange --teacher and --student")


def test_images_without_labels() -> None:
    data = changed(train=lambda labels: torch.full_like(labels, UNLABELLED))
    assert bad(found(data=data)) == {}


def test_a_teacher_of_some_of_the_classes() -> None:
    """It is tested on the images of its classes, and kd is computed over these."""
    master = teacher()
    select_classes(master, [3, 0, 1], (3, 8, 8))
    student, pair = seeded(LinearHead), (RECIPE, (3, 0, 1))
    findings = diagnose(master, student, digits(), pair[0], teacher_classes=pair[1])
    levels = {each.check: each for each in findings}
    assert [each.check for each in findings if each.level != "good"] == ["sizes"]
    test = digits().test
    assert test is not None
    count = sum(int(label) in pair[1] for label in test.labels)
    assert levels["teacher's accuracy"].text.endswith(f"of {count} test images")
    nothing = diagnose(master, student, digits(), RECIPE, teacher_classes=(-1, -1, -1))
    assert [each.check for each in nothing if each.level == "wrong"] == ["adapters"]


def test_a_network_that_does_not_fit() -> None:
    with pytest.raises(UserError, match="the teacher gives logits for 3 classes"):
        found(nn.Sequential(nn.Flatten(), nn.Linear(192, 3)))
    nothing = split_of(torch.zeros(0, 3, 8, 8, dtype=torch.uint8), torch.zeros(0).long())
    with pytest.raises(UserError, match="has no images to train and test on"):
        found(data=replace(digits(), train=nothing))


def test_a_sample_is_drawn_once_each_and_again_the_same() -> None:
    split = digits().test
    assert split is not None
    sizes: Iterable[int] = (10, 1000)
    for size in sizes:
        images, labels = draw_sample(split, size, 3)
        assert len(images) == len(labels) == min(size, 100)
        assert torch.equal(images, draw_sample(split, size, 3).images)
    assert not torch.equal(draw_sample(split, 10, 4).images, draw_sample(split, 10, 3).images)


def test_what_distill_refuses() -> None:
    with pytest.raises(UserError, match="dice is a loss of segmentation"):
        found(recipe=replace(RECIPE, dice=1.0))
    unlabelled = changed(train=lambda y: torch.where(y == 3, UNLABELLED, y))
    with pytest.raises(UserError, match="mixup and cutmix mix labels"):
        found(data=unlabelled, recipe=replace(RECIPE, mixup=0.5))


def test_classes_of_annotated_images_are_counted_over_the_whole_set() -> None:
    """The images of a class may lie together, as those of COCO and of videos do."""
    masks = (torch.arange(2500) >= 1250).long().reshape(-1, 1, 1).expand(-1, 2, 2)
    pixels = torch.zeros(2500, 3, 2, 2, dtype=torch.uint8)
    split = Split(torch.zeros(2500).long(), lambda places: pixels[places],
                  lambda places: masks[places])  # fmt: skip
    grey = (0.5,) * 3
    data = Dataset("m", ("a", "b"), 2, grey, grey, split, split, task="segmentation")
    assert check_labels(data).level == "good"
    finding = check_labels(replace(data, classes=("a", "b", "c")))
    assert finding.level == "warning"
    assert finding.text == (
        "1 of 3 classes have no training images, such as c, among 1,000 of 2,500"
    )
