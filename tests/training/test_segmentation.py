"""Training of networks that give logits for each position."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from shapes import shapes
from tiny_training import measure_result
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu
from torch.optim import SGD

from diswot.data.augmentation import Augmentation, apply, apply_to_masks, draw
from diswot.data.dataset import UNLABELLED, Dataset
from diswot.data.registry import create_dataset
from diswot.errors import UserError
from diswot.models.registry import create_teacher
from diswot.training.batches import Part
from diswot.training.distill import distill
from diswot.training.distributed import Processes
from diswot.training.objective import Objective, create_losses, dice_loss
from diswot.training.recipe import Recipe
from diswot.training.step import TrainingStep
from diswot.training.trainable import Distillation

RECIPE = Recipe(epochs=2, batch_size=10, lr=0.1, flip=True, precision="fp32")


class Segmenter(nn.Module):
    """An encoder of two stages, and a head whose logits are enlarged."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, width, 3, 1, 1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.deep = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1), nn.BatchNorm2d(width))
        self.head = nn.Conv2d(width, 3, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = self.encoder(images)
        logits = self.head(relu(self.deep(maps)))
        return {"out": interpolate(logits, images.shape[2:], mode="bilinear")}


def seeded(width: int = 8) -> Segmenter:
    torch.manual_seed(0)
    return Segmenter(width)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return create_dataset(shapes(tmp_path_factory.mktemp("shapes")))


@pytest.fixture(scope="module")
def teacher(data: Dataset) -> nn.Module:
    recipe = Recipe(epochs=8, batch_size=10, lr=0.1, flip=True, precision="fp32")
    return distill(None, seeded(16), data, recipe).student


def test_it_learns(data: Dataset, teacher: nn.Module) -> None:
    """Ground alone is 100/3 times its share of the pixels, below 33.4 %."""
    assert measure_result(teacher, data) > 60


@pytest.mark.parametrize("losses", [{"kd": 1.0}, {"at": 1.0}, {"cwd": 0.1, "dist": 1.0}])
def test_losses_teach_pixels(data: Dataset, teacher: nn.Module, losses: dict[str, float]) -> None:
    recipe = Recipe(**{**RECIPE.as_dict(), "losses": losses, "milestones": ()})
    made = distill(teacher, seeded(), data, recipe)
    row = made.history[-1]
    assert {"test_miou", "train_accuracy", "cross_entropy", *losses} <= row.keys()
    assert "test_accuracy" not in row
    assert made.test_miou == made.test_result == pytest.approx(measure_result(made.student, data))
    assert row["loss"] < made.history[0]["loss"]


def test_dice_of_two_pixels_by_hand() -> None:
    """Probabilities 0.75 and 0.5 of class 0, the target of the first; the third pixel is void.

    Class 0: 1 - (2 * 0.75 + 1) / (1.25 + 1 + 1); class 1: 1 - (2 * 0.5 + 1) / (0.75 + 1 + 1);
    class 2 has no pixel and is left out.
    """
    shares = torch.tensor([[0.75, 0.25, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    logits = (shares + 1e-30).log().T.reshape(1, 3, 1, 3)
    targets = torch.tensor([[[0, 1, UNLABELLED]]])
    expected = ((1 - 2.5 / 3.25) + (1 - 2 / 2.75)) / 2

    assert float(dice_loss(logits, targets)) == pytest.approx(expected)
    assert float(dice_loss(logits, torch.full_like(targets, UNLABELLED))) == 0


@pytest.mark.parametrize("losses", [{"kd": 1.0}, {"at": 1.0}, {"kd": 1.0, "cwd": 0.1}])
@pytest.mark.parametrize("void", ["first", "both"])
def test_a_part_whose_pixels_are_all_void_contributes_nothing(
    void: str, losses: dict[str, float], data: Dataset, teacher: nn.Module
) -> None:
    """Of two parts one is void: the losses and the gradients are half of those of the other."""
    labels = torch.full((2, 2, *data.image_shape[1:]), UNLABELLED)
    images = torch.randn(2, 2, *data.image_shape, generator=torch.Generator().manual_seed(0))
    labels[1] = torch.arange(labels[1].numel()).reshape(labels[1].shape) % 3
    labels[1] = UNLABELLED if void == "both" else labels[1]
    recipe = replace(RECIPE, losses=losses, dice=0.5)

    def updated(number: int) -> tuple[dict[str, float], nn.Module, float]:
        student = seeded().eval()  # no statistics of a batch
        given = Distillation(teacher.eval(), student, data, recipe)
        goal = Objective(given, create_losses(given, torch.device("cpu")), Processes())
        step = TrainingStep(
            student, student, goal, SGD(student.parameters(), 1e-3), lambda _: None, None, 0
        )
        parts = [Part(images[i], labels[i], None, torch.arange(2)) for i in range(2)][-number:]
        values = {name: float(value) for name, value in step(parts).items()}
        return values, student, float(student.head.bias.grad.abs().sum())

    (both, model, slope), (one, _, whole) = updated(2), updated(1)
    assert slope == pytest.approx(whole / 2)
    assert both.pop("train_accuracy", None) == one.pop("train_accuracy", None)
    assert both == pytest.approx({name: value / 2 for name, value in one.items()})
    if void == "both":
        assert set(both.values()) == {0.0} and slope == 0
        assert torch.equal(model.head.weight, seeded().head.weight)
    else:
        assert both.keys() == {"loss", "cross_entropy", "dice", *losses} and both["loss"] > 0


def test_dice_joins_the_loss_of_pixels_alone(data: Dataset) -> None:
    recipe = replace(RECIPE, epochs=1, dice=0.5, schedule="poly")
    history = distill(None, seeded(), data, recipe).history
    assert 0 < history[-1]["dice"] < 0.5

    with pytest.raises(UserError, match="dice is a loss of segmentation"):
        distill(None, create_teacher("resnet20", 10), create_dataset("digits"), recipe)


def test_held_and_streamed_images_give_one_curve(data: Dataset) -> None:
    curves = [
        [row["loss"] for row in distill(None, seeded(), data, RECIPE, hold=hold).history]
        for hold in (True, False)
    ]
    assert curves[0] == pytest.approx(curves[1])


def test_a_training_is_resumed(data: Dataset, tmp_path: Path) -> None:
    whole = distill(None, seeded(), data, RECIPE, out=tmp_path / "whole")
    calls = 0

    def stop(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distill(None, seeded(), data, RECIPE, out=tmp_path / "part", on_step=stop)
    resumed = distill(None, seeded(), data, RECIPE, out=tmp_path / "part", resume=True)
    assert resumed.test_miou == whole.test_miou


@pytest.mark.parametrize("setting", [{"mixup": 0.2}, {"cutmix": 1.0}, {"randaugment": 5}])
def test_augmentation_of_whole_images_is_refused(data: Dataset, setting: dict[str, float]) -> None:
    recipe = Recipe(**{**RECIPE.as_dict(), "milestones": (), **setting})
    with pytest.raises(UserError, match="are for one label an image"):
        distill(None, seeded(), data, recipe)


@pytest.mark.parametrize(
    "changes",
    [
        Augmentation(flip=True),
        Augmentation(crop=3),
        Augmentation(flip=True, crop=2),
        Augmentation(area=0.3),
    ],
)
def test_masks_move_with_their_images(changes: Augmentation) -> None:
    """An image that shows its mask shows it after each change, but for blended edges."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.randint(0, 2, (6, 3, 4)).repeat_interleave(8, 1).repeat_interleave(8, 2)
    images = (200 * masks[:, None] + 20).expand(-1, 3, -1, -1).to(torch.uint8)
    drawn = draw(changes, 6, (24, 32), generator)
    moved, classes = apply(images, changes, drawn), apply_to_masks(masks, changes, drawn)
    assert classes.dtype == torch.int64
    shown = torch.where(moved[:, 0] == 220, 1, torch.where(moved[:, 0] == 20, 0, UNLABELLED))
    if changes.crop:
        assert torch.equal(classes, shown)
    sharp = shown != UNLABELLED
    assert torch.equal(classes[sharp], shown[sharp])
    assert sharp.float().mean() > 0.5
    assert not torch.equal(classes, masks)


class TwoProcesses(Processes):
    """Two processes as the first sees them; it may gather what all images have."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 2

    def sum(self, value: Tensor) -> Tensor:
        return 2 * value

    def gather(self, value: Tensor) -> Tensor:
        assert value.ndim > 2, "rows differ in number between processes"
        return torch.cat((value, value))


def test_maps_of_each_share_are_compared(data: Dataset, teacher: nn.Module) -> None:
    """The shares of two processes have different numbers of pixels that are not ignored."""
    student, recipe = seeded(), Recipe(losses={"at": 1.0}, precision="fp32")
    given = Distillation(teacher, student, data, recipe)
    losses, alone = create_losses(given, torch.device("cpu")), Processes()
    assert data.train is not None
    labels = data.train.targets([0, 1])
    part = Part(data.normalise(data.train.read([0, 1])), labels, None, torch.arange(2))
    one, _ = Objective(given, losses, alone)(part)
    two, correct = Objective(given, losses, TwoProcesses())(part)
    assert torch.equal(one["at"], two["at"]) and correct is not None
    assert len(correct) == 2 * int((labels != UNLABELLED).sum())
