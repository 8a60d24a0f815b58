"""The settings of a recipe that `search --verify --tune` searches together with the students."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import optuna

from diswot.errors import UserError, unknown
from diswot.knowledge.registry import get_distance
from diswot.training.recipe import Recipe
from diswot.utils import user_code

RANGE = 4.0  # a tuned learning rate moves by up to this factor, up and down
WEIGHTS = 10.0  # a tuned weight moves by up to this factor, up and down
TEMPERATURES = (1.0, 16.0)

Tuned = dict[str, Any]  # settings of a recipe


def _rate(trial: optuna.Trial, recipe: Recipe) -> Tuned:
    low, high = recipe.lr / RANGE, recipe.lr * RANGE
    return {"lr": trial.suggest_float("lr", low, high, log=True)}


def _weights(trial: optuna.Trial, recipe: Recipe) -> Tuned:
    losses: dict[Any, float] = dict(recipe.losses)
    for name, weight in recipe.losses.items():
        if weight:
            key, limits = f"weight_{user_code.name_of(name)}", (weight / WEIGHTS, weight * WEIGHTS)
            losses[name] = trial.suggest_float(key, *limits, log=True)
    return {"losses": losses}


TUNED: dict[str, Callable[[optuna.Trial, Recipe], Tuned]] = {
    "temperature": lambda trial, recipe: {
        "temperature": trial.suggest_float("temperature", *TEMPERATURES, log=True)
    },
    "weights": _weights,
    "lr": _rate,
}
"""Functions that suggest settings of a recipe, by the name that the user gives."""


def check_tuned(recipe: Recipe, tune: Sequence[str]) -> None:
    """Refuse settings to tune that are unknown, or that no loss has.

    Raises:
        UserError: There is such a setting.
    """
    for name in tune:
        if name not in TUNED:
            raise unknown("setting to tune", name, TUNED)
    softens = any("temperature" in get_distance(name).defaults for name in recipe.losses)
    if "temperature" in tune and not softens:
        raise UserError("no loss has a temperature to tune")


def suggested(trial: optuna.Trial, recipe: Recipe, tune: Sequence[str]) -> Tuned:
    """Return the changes of a recipe that a trial suggests, for some keys of `TUNED`."""
    changes: Tuned = {}
    for name in tune:
        changes |= TUNED[name](trial, recipe)
    return changes


def untuned(recipe: Recipe, tune: Sequence[str]) -> dict[str, float]:
    """Return the parameters of a trial at which `suggested` leaves a recipe as it is."""
    plain: dict[str, float] = {"lr": recipe.lr} if "lr" in tune else {}
    if "temperature" in tune:
        own = (get_distance(name).defaults.get("temperature") for name in recipe.losses)
        plain["temperature"] = recipe.temperature or float(str(next(filter(None, own))))
    if "weights" in tune:
        weights = recipe.weights.items()
        plain |= {f"weight_{name}": weight for name, weight in weights if weight}
    return plain
