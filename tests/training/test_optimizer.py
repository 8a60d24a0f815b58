"""Optimizers and learning rates."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from tiny_training import SHORT
from torch import nn
from toys import LinearHead, seeded

from diswot.errors import UserError
from diswot.training.optimizer import create_optimizer, create_schedule, parameter_groups
from diswot.training.recipe import Recipe

LR, EPOCHS, STEPS = 0.3, 12, 5
TOTAL = EPOCHS * STEPS


def optimizer() -> torch.optim.Optimizer:
    """Return an optimizer whose groups have a rate that no schedule gives."""
    groups = [{"params": [nn.Parameter(torch.zeros(1))]} for _ in range(2)]
    return torch.optim.SGD(groups, lr=123.0)


def rates(done: int = 0, **settings: Any) -> list[float]:
    """Return the rate of each update from `done` on."""
    made = optimizer()
    recipe = Recipe(**{"lr": LR, "epochs": EPOCHS, **settings})
    set_rate = create_schedule(made, recipe, STEPS, done)
    found = []
    for update in range(done, TOTAL):
        first, second = (group["lr"] for group in made.param_groups)
        assert first == second
        found.append(first)
        made.step()
        set_rate(update + 1)
    return found


def cosine(update: int) -> float:
    return LR * (1 + math.cos(math.pi * update / TOTAL)) / 2


def test_cosine_by_hand() -> None:
    assert rates() == pytest.approx([cosine(update) for update in range(TOTAL)], rel=1e-12)


def test_step_by_hand() -> None:
    """A milestone may lie within an epoch: 7.5 epochs are 37.5 updates."""
    found = rates(schedule="step", milestones=(2, 7.5, 11), decay=0.1)
    drops = [sum(update >= at for at in (10, 37.5, 55)) for update in range(TOTAL)]
    assert found == pytest.approx([LR * 0.1**drop for drop in drops], rel=1e-12)


def test_poly_by_hand() -> None:
    found = rates(schedule="poly")
    expected = [LR * (1 - update / TOTAL) ** 0.9 for update in range(TOTAL)]
    assert found == pytest.approx(expected, rel=1e-12)


def test_one_cycle_by_hand() -> None:
    """From a 25th up to the highest at 30 % of the updates, then down to 4e-6 times that."""
    found = rates(schedule="onecycle")
    peak = 0.3 * TOTAL - 1
    low, least = LR / 25, LR / 25 / 1e4
    for update, rate in enumerate(found):
        rise, fall = update / peak, (update - peak) / (TOTAL - 1 - peak)
        up = LR + (low - LR) * (1 + math.cos(math.pi * rise)) / 2
        down = least + (LR - least) * (1 + math.cos(math.pi * fall)) / 2
        assert rate == pytest.approx(up if update <= peak else down, rel=1e-9)


@pytest.mark.parametrize("warmup", [2, 1.5])
def test_warm_up_rises_in_a_line_and_joins_the_schedule(warmup: float) -> None:
    found, until = rates(warmup_epochs=warmup), warmup * STEPS
    for update, rate in enumerate(found):
        line = LR * (0.01 + 0.99 * update / until)
        assert rate == pytest.approx(line if update < until else cosine(update), rel=1e-12)
    steps = rates(schedule="step", milestones=(6,), warmup_epochs=warmup)
    assert steps[:7] == pytest.approx(found[:7]) and set(steps[10:30]) == {LR}


@pytest.mark.parametrize("done", [1, 5, 18, 59])
@pytest.mark.parametrize(
    "settings",
    [
        {"warmup_epochs": 2},
        {"schedule": "onecycle"},
        {"schedule": "poly"},
        {"schedule": "step", "milestones": (4,)},
    ],
)
def test_rates_after_a_resume_are_those_of_the_whole_training(
    settings: dict[str, Any], done: int
) -> None:
    assert rates(done, **settings) == rates(**settings)[done:]


def test_a_training_of_one_update() -> None:
    for schedule, share in (("cosine", 1), ("onecycle", 4e-6)):
        made = optimizer()
        set_rate = create_schedule(made, Recipe(lr=LR, epochs=1, schedule=schedule), 1, 0)
        assert made.param_groups[0]["lr"] == pytest.approx(share * LR)
        made.step()
        set_rate(1)


class TestGroups:
    def test_biases_and_normalisation_do_not_decay(self) -> None:
        model, losses = seeded(LinearHead), nn.Conv2d(3, 4, 1)
        decaying, others = parameter_groups(model, losses, 0.1)
        weights = [model.block1[0].weight, model.block2[0].weight, model.fc.weight, losses.weight]
        assert (decaying["weight_decay"], others["weight_decay"]) == (0.1, 0)
        assert {id(p) for p in decaying["params"]} == {id(p) for p in weights}
        every = [*model.parameters(), *losses.parameters()]
        assert {id(p) for p in others["params"]} == {id(p) for p in every} - {
            id(p) for p in weights
        }

    def test_what_a_transformer_lists_does_not_decay(self) -> None:
        model = VisionTransformer(8, 4, num_classes=5, embed_dim=8, depth=1, num_heads=2)
        decaying, others = parameter_groups(model, None, 0.1)
        for listed in (model.pos_embed, model.cls_token):
            assert listed.ndim == 3 and any(listed is each for each in others["params"])
        assert any(model.head.weight is each for each in decaying["params"])

    def test_frozen_weights_are_left_out(self) -> None:
        model = seeded(LinearHead)
        model.block1.requires_grad_(False)
        count = sum(len(group["params"]) for group in parameter_groups(model, None, 0.1))
        assert count == len(list(model.parameters())) - len(list(model.block1.parameters()))
        with pytest.raises(UserError, match="the student has no weights to train"):
            create_optimizer(model.requires_grad_(False), None, SHORT)


class TestOptimizers:
    @pytest.mark.parametrize(
        ("name", "kind"), [("sgd", "SGD"), ("adamw", "AdamW"), ("lamb", "Lamb")]
    )
    def test_by_name(self, name: str, kind: str) -> None:
        made = create_optimizer(seeded(LinearHead), None, replace(SHORT, optimizer=name))
        assert type(made).__name__ == kind
        assert [group["weight_decay"] for group in made.param_groups] == [5e-4, 0]

    @pytest.mark.parametrize("momentum", [0.0, 0.9])
    def test_nesterov_momentum(self, momentum: float) -> None:
        """v <- m v + g; w <- w - lr (g + m v), as Sutskever et al., 2013, write it."""
        model = nn.Linear(1, 1, bias=False)
        nn.init.constant_(model.weight, 1.0)
        made = create_optimizer(
            model, None, Recipe(lr=0.1, momentum=momentum, weight_decay=0.0, losses={})
        )
        weight, speed = 1.0, 0.0
        for gradient in (3.0, -1.0, 2.0):
            model.weight.grad = torch.full((1, 1), gradient)
            made.step()
            speed = momentum * speed + gradient
            weight -= 0.1 * (gradient + momentum * speed)
            assert model.weight.item() == pytest.approx(weight, rel=1e-6)

    def test_adamw_moves_each_weight_by_the_rate(self) -> None:
        """The first step of Adam is the sign of the gradient; the decay is apart from it."""
        model = nn.Linear(2, 1, bias=False)
        nn.init.constant_(model.weight, 1.0)
        recipe = Recipe(optimizer="adamw", lr=0.01, weight_decay=0.5, losses={})
        made = create_optimizer(model, None, recipe)
        model.weight.grad = torch.tensor([[4.0, -0.1]])
        made.step()
        decayed = 1 - 0.01 * 0.5
        assert model.weight.tolist()[0] == pytest.approx([decayed - 0.01, decayed + 0.01], rel=1e-5)
