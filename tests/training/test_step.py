"""Updates of the weights, and their moving average."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from timm.utils import ModelEmaV3
from tiny_training import (
    SHORT,
    at_step,
    curve,
    digits,
    distill,
    interrupt,
    measure_result,
    states_equal,
    teacher,
)
from torch import nn
from toys import LinearHead, seeded

from diswot.training.batches import Part
from diswot.training.checkpoint import WEIGHTS
from diswot.training.distributed import Processes
from diswot.training.objective import Objective
from diswot.training.step import TrainingStep
from diswot.training.trainable import Distillation

AVERAGED = replace(SHORT, ema=0.9)


class Scale(nn.Module):
    """Logits (w, 0) for every image."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.stack((self.weight, torch.zeros(()))).expand(len(images), 2)


def test_by_hand() -> None:
    """Gradient descent on -log sigmoid(w), which starts with the slope -1/2."""
    student = Scale()
    recipe = replace(SHORT, losses={}, cross_entropy=2.0)
    objective = Objective(Distillation(None, student, digits(), recipe), None, Processes())
    optimizer = torch.optim.SGD(student.parameters(), 0.1)
    average = ModelEmaV3(student, 0.5, use_warmup=True)
    calls: list[int] = []
    step = TrainingStep(student, student, objective, optimizer, calls.append, average, updates=7)
    labels = torch.zeros(4, dtype=torch.int64)
    part = Part(torch.zeros(4, 3, 2, 2), labels, None, labels)
    values = step([part, part])
    assert student.weight.item() == pytest.approx(0.1 * 2 * 0.5)
    assert float(values["loss"]) == pytest.approx(2 * 0.6931472) == float(values["cross_entropy"])
    assert float(values["train_accuracy"]) == 100
    assert calls == [8] and step.updates == 8 and step.rate == 0.1
    assert average.module.weight.item() == pytest.approx(0.5 * 0.1)


@pytest.mark.parametrize(("clip", "moved"), [(0.0, 1.0), (0.25, 0.25), (2.0, 1.0)])
def test_the_gradient_is_clipped(clip: float, moved: float) -> None:
    """By its norm over all parts of a batch: twice the slope -1/2."""
    student = Scale()
    recipe = replace(SHORT, losses={}, cross_entropy=2.0, clip_grad=clip)
    objective = Objective(Distillation(None, student, digits(), recipe), None, Processes())
    optimizer = torch.optim.SGD(student.parameters(), 1.0)
    step = TrainingStep(student, student, objective, optimizer, int, None, updates=0)
    labels = torch.zeros(4, dtype=torch.int64)
    part = Part(torch.zeros(4, 3, 2, 2), labels, None, labels)
    step([part, part])
    assert student.weight.item() == pytest.approx(moved)


def test_a_recipe_clips() -> None:
    """A limit that is never reached changes nothing; one that is always reached does."""
    plain, wide, narrow = (
        distill(None, seeded(LinearHead), digits(), replace(SHORT, clip_grad=clip)).student
        for clip in (0.0, 1e6, 1e-3)
    )
    assert states_equal(plain, wide) and not states_equal(plain, narrow)


def test_the_weights_of_distances_grow() -> None:
    """At update n of a ramp of r they are n / r of what they become."""
    plain = replace(SHORT, epochs=3, crop=0, lr=1e-9)  # the student stays where it is
    full = curve(distill(teacher(), seeded(LinearHead), digits(), plain))
    ramped = replace(plain, ramp_epochs=2.0)
    rows = curve(distill(teacher(), seeded(LinearHead), digits(), ramped))
    steps = 330 // 32
    shares = [sum(min(1, (e * steps + i) / (2 * steps)) for i in range(1, steps + 1)) / steps
              for e in range(3)]  # fmt: skip
    for share, row, whole in zip(shares, rows, full, strict=True):
        assert row["kd"] == pytest.approx(share * whole["kd"], rel=0.05)
        assert row["cross_entropy"] == pytest.approx(whole["cross_entropy"], rel=1e-3)
    assert shares[2] == 1 and shares[0] < 0.3


def test_a_ramp_goes_on_where_it_stopped(tmp_path: Path) -> None:
    ramped = replace(SHORT, ramp_epochs=1.5)
    straight = distill(teacher(), seeded(LinearHead), digits(), ramped)
    with pytest.raises(KeyboardInterrupt):
        stop = at_step(15, interrupt)
        distill(teacher(), seeded(LinearHead), digits(), ramped, out=tmp_path, on_step=stop)
    resumed = distill(teacher(), seeded(LinearHead), digits(), ramped, out=tmp_path, resume=True)
    assert curve(resumed) == curve(straight)


def test_the_average_warms_up() -> None:
    """After n updates the decay is 1 - n^(-2/3), up to the recipe's."""
    average = ModelEmaV3(nn.Linear(1, 1), 0.9, use_warmup=True)
    for updates in (1, 2, 10, 32):
        assert average.get_decay(updates) == pytest.approx(min(0.9, 1 - updates ** (-2 / 3)))


def test_the_average_is_what_is_tested_and_kept(tmp_path: Path) -> None:
    plain = distill(None, seeded(LinearHead), digits(), SHORT)
    made = distill(None, seeded(LinearHead), digits(), AVERAGED, out=tmp_path)
    assert [r["loss"] for r in curve(plain)] == [r["loss"] for r in curve(made)]
    assert not states_equal(plain.student, made.student)
    fresh = seeded(LinearHead, 3)
    fresh.load_state_dict(load_file(tmp_path / WEIGHTS))
    assert measure_result(fresh, digits()) == made.test_accuracy


def test_a_finished_training_with_an_average_is_read_again(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        stop = at_step(15, interrupt)
        distill(None, seeded(LinearHead), digits(), AVERAGED, out=tmp_path, on_step=stop)
    resumed = distill(None, seeded(LinearHead), digits(), AVERAGED, out=tmp_path, resume=True)
    again = distill(None, seeded(LinearHead, 5), digits(), AVERAGED, out=tmp_path, resume=True)
    assert states_equal(again.student, resumed.student)
