"""Optimizers and learning-rate schedules of timm and torch, as a recipe names them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from timm.optim import (  # type: ignore[attr-defined]
    create_optimizer_v2,
    param_groups_weight_decay,
)
from timm.scheduler import (  # type: ignore[attr-defined]
    CosineLRScheduler,
    MultiStepLRScheduler,
    PolyLRScheduler,
)
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from diswot.errors import UserError
from diswot.training.recipe import Recipe

WARMUP_START = 0.01  # share of the highest learning rate at the first update of a warm-up
POWER = 0.9  # of the polynomial schedule

SetRate = Callable[[int], object]
"""Sets the learning rate of the next update, given the number of updates so far."""


def create_optimizer(student: nn.Module, losses: nn.Module | None, recipe: Recipe) -> Optimizer:
    """Create the optimizer of a student and of what its losses learn.

    Raises:
        UserError: The student has no weights to train.
    """
    if not any(weight.requires_grad for weight in student.parameters()):
        raise UserError("the student has no weights to train")
    more: dict[str, Any] = {"nesterov": recipe.momentum > 0} if recipe.optimizer == "sgd" else {}
    optimizer: Optimizer = create_optimizer_v2(
        parameter_groups(student, losses, recipe.weight_decay),
        recipe.optimizer,
        lr=float(recipe.lr),
        momentum=float(recipe.momentum),
        **more,
    )
    return optimizer


def parameter_groups(
    student: nn.Module, losses: nn.Module | None, weight_decay: float
) -> list[dict[str, Any]]:
    """Group parameters by weight decay; biases and normalisation layers have none.

    The parameters that the student lists in `no_weight_decay()`, as timm's transformers do, have
    none either. The decaying group is the first, as in checkpoints of version 0.1.
    """
    modules = nn.ModuleList([student] if losses is None else [student, losses])
    listed: set[str] = getattr(student, "no_weight_decay", set)()
    spared = {f"0.{name}" for name in listed}
    groups: list[dict[str, Any]] = param_groups_weight_decay(
        modules, float(weight_decay), no_weight_decay_list=spared
    )
    return groups[::-1]


def create_schedule(optimizer: Optimizer, recipe: Recipe, steps: int, done: int) -> SetRate:
    """Create the learning-rate schedule and set the rate of the update after those `done`.

    The present rate of the optimizer, which a checkpoint may have set, is ignored. An epoch has
    `steps` updates.

    Returns:
        A function to call after each update.
    """
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] = float(recipe.lr)
    if recipe.schedule == "onecycle":
        return _one_cycle(optimizer, recipe, steps, done)
    warmup: dict[str, Any] = {
        "warmup_t": recipe.warmup_epochs * steps,
        "warmup_lr_init": WARMUP_START * float(recipe.lr),
        "warmup_prefix": False,
        "t_in_epochs": False,
    }
    scheduler: CosineLRScheduler | PolyLRScheduler | MultiStepLRScheduler
    total = recipe.epochs * steps
    if recipe.schedule == "cosine":  # of one cycle; a decay of 1 would log a warning
        scheduler = CosineLRScheduler(optimizer, total, cycle_decay=0.0, **warmup)
    elif recipe.schedule == "poly":
        scheduler = PolyLRScheduler(optimizer, total, POWER, cycle_decay=0.0, **warmup)
    else:  # timm lowers the rate one update before a milestone
        updates: list[Any] = [epoch * steps + 1 for epoch in recipe.milestones]
        scheduler = MultiStepLRScheduler(optimizer, updates, recipe.decay, **warmup)
    set_rate: SetRate = scheduler.step_update
    set_rate(done)
    return set_rate


def _one_cycle(optimizer: Optimizer, recipe: Recipe, steps: int, done: int) -> SetRate:
    """Create torch's one-cycle schedule, with the momentum constant."""
    total = recipe.epochs * steps
    scheduler = OneCycleLR(optimizer, float(recipe.lr), total, cycle_momentum=False)
    if done:  # the first schedule has written its bounds into the optimizer
        scheduler = OneCycleLR(
            optimizer, float(recipe.lr), total, cycle_momentum=False, last_epoch=done - 1
        )
    return lambda updates: scheduler.step()
