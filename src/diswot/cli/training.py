"""What the commands that train have in common: the recipe, the bar, the processes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from diswot.cli import console
from diswot.errors import UserError

if TYPE_CHECKING:
    from diswot.training.recipe import Recipe


def recipe(name: str | None, given: Mapping[str, Any], *, alone: bool) -> Recipe:
    """The recipe of that name, or the plain one, with the settings that are not None.

    Args:
        name: Of a recipe, or a TOML file; None for the plain one.
        given: By name of `Recipe`'s; losses and milestones as texts.
        alone: Whether there is no teacher, and so no losses.
    """
    from diswot.training.recipe import Recipe, parse_losses
    from diswot.training.recipe_files import load_recipe

    settings = {key: value for key, value in given.items() if value is not None}
    if "losses" in settings:
        settings["losses"] = parse_losses(settings["losses"])
    if "milestones" in settings:
        settings["milestones"] = _numbers(settings["milestones"])
    if alone:
        if useless := settings.keys() & {"losses", "temperature"}:
            option = min(useless)
            raise UserError(f"without a teacher nothing has a use for --{option}; leave it out")
        settings["losses"] = {}
    return Recipe(**settings) if name is None else load_recipe(name, **settings)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise UserError(f"milestones are epochs with commas, not {text!r}") from error


def main_process() -> bool:
    """Whether this is the one of all processes, started by Accelerate, that tells and writes."""
    return os.environ.get("RANK", "0") == "0"


def shown(advance: console.Advance, how: Recipe) -> Callable[[int, int, Mapping[str, float]], None]:
    """Moves the bar of a training, with its rate since the last epoch's end and its accuracy."""
    start, first = 0.0, 0

    def on_step(step: int, steps: int, row: Mapping[str, float]) -> None:
        nonlocal start, first
        now = time.perf_counter()
        if not first or (step - 1) % (steps // how.epochs) == 0:
            start, first = now, step
        rate = (step - first) * how.batch_size / (now - start) if step > first else 0.0
        notes = [f"{rate:.0f} images/s"] * (rate > 0)
        notes += [f"test {row['test_accuracy']:.2f} %"] if row else []
        advance("training", step, steps, ", ".join(notes))

    return on_step
