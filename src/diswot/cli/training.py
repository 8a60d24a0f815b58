"""What the commands that train share: the recipe, the progress bar, the processes."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from diswot.cli import console
from diswot.errors import UserError
from diswot.utils.units import show_number
from diswot.utils.user_code import short_name

if TYPE_CHECKING:
    from torch import nn

    from diswot.cli.training_options import TrainingOptions
    from diswot.training.recipe import Recipe


def recipe(
    options: TrainingOptions,
    data: str,
    *,
    alone: bool,
    student: nn.Module | None = None,
    fresh: bool = False,
    record: Mapping[str, Any] | None = None,
) -> Recipe:
    """Load the recipe that options name, and change the settings that they give.

    Without a name it is the recorded recipe of a resumed training, or else the default of the
    student and the epochs. A `fresh` student begins with random weights; trained `alone`, there
    are no losses. The `data` set digits is mirrored only on request.
    """
    from diswot.training.recipe import parse_losses
    from diswot.training.recipe_files import default_recipe, load_recipe, recorded_recipe

    settings = {key: value for key, value in asdict(options).items() if value is not None}
    name = settings.pop("recipe", None)
    if data == "digits" and (name is not None or not record):
        settings.setdefault("flip", False)
    if "losses" in settings:
        parse_losses(settings["losses"])  # a mistake in them is named first
    if "milestones" in settings:
        settings["milestones"] = _numbers(settings["milestones"])
    if alone:
        if useless := settings.keys() & {"losses", "temperature"}:
            option = min(useless)
            raise UserError(f"without a teacher nothing has a use for --{option}; leave it out")
        settings["losses"] = {}
    if name is None and record:
        return recorded_recipe(record, **settings)
    if name is None:
        name = default_recipe(student, settings.get("epochs"))
    return load_recipe(name, fresh=fresh, **settings)


def default_line(student: nn.Module | None, made: Recipe) -> str:
    """Return the line that says which recipe was chosen where the user named none."""
    from diswot.training.recipe_files import DETECTOR, default_recipe

    name = default_recipe(student, made.epochs)
    own = "its own losses" if name == DETECTOR else "cross-entropy"
    weights = {own: made.cross_entropy, **made.weights}
    losses = " + ".join(
        f"{weight:g} {short_name(loss)}" for loss, weight in weights.items() if weight
    )
    how = f"{show_number(made.epochs, 'epoch')}, {made.schedule} up to lr {made.lr:g}, {losses}"
    return f"recipe {name}: {how} (--recipe names another)"


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise UserError(f"milestones are epochs with commas, not {text!r}") from error


def show_classes(name: str, result: Mapping[str, Any]) -> None:
    """Print a row for each class with its test result in %, and the means in the last rows.

    Nothing is printed without `by_class`, as in classification.
    """
    from diswot.tasks.registry import TASKS, tested_task

    task, by_class = tested_task(result), result.get("by_class")
    if task is None or not by_class:
        return
    measure = TASKS[task].class_measure
    shown = {n: "-" if v is None or math.isnan(v) else f"{v:.2f}" for n, v in by_class.items()}
    rows = [[each, value] for each, value in shown.items()]
    console.table(f"{short_name(name)}: {measure} of each class", ["class", f"{measure} %"], rows)


def main_process() -> bool:
    """Whether this process, of all that Accelerate started, prints and writes."""
    return os.environ.get("RANK", "0") == "0"
