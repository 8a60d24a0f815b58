"""Recipes by name: TOML files, built-in or a user's, whose keys are the settings of `Recipe`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import Any

from torch import nn

from diswot.errors import UserError, unknown
from diswot.training.recipe import LARGEST, Recipe, combined, parse_losses, published_settings
from diswot.utils.compat import BatchNorm
from diswot.utils.files import read_toml

_HERE = Path(__file__).parent / "recipes"
RECIPES = {path.stem: path for path in sorted(_HERE.glob("*.toml"))}

_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "float | None": ((int, float), "a number"),
    "bool": ((bool,), "true or false"),
    "str": ((str,), "a text"),
    "tuple[float, ...]": ((list,), "a list of numbers"),
    "Weights": (
        (dict, str),
        "a table of weights, or a text such as kd:0.9,at:1",
    ),
}
SHORT = 20  # epochs of a training, up to which `short` is the default recipe
DETECTOR = "detector"  # the default recipe of detectors
FRESH_TABLE = "fresh"  # in a file: settings for students with random weights
_TYPES = {each.name: str(each.type) for each in fields(Recipe)}


def default_recipe(student: nn.Module | None, epochs: int | None = None) -> str:
    """Name the recipe when the user names none: `detector`, `transformer`, `short` or `plain`.

    A detector is recognised by the `targets` that it takes beside images, as torchvision's do.
    A transformer is recognised by its normalisation: it normalises layers (LayerNorm, RMSNorm) and
    no batches. ConvNeXt and MLP-Mixer do so too, and train well with the same recipe. `short` is
    for all other networks in trainings of 20 epochs or fewer.

    Args:
        student: Network that is trained; None for one that is no detector and no transformer.
        epochs: Epochs of the training. Default: those of the recipe, 240.
    """
    if student is not None and "targets" in signature(student.forward).parameters:
        return DETECTOR
    modules = [] if student is None else list(student.modules())
    layers = any(isinstance(module, nn.LayerNorm | nn.RMSNorm) for module in modules)
    batches = any(isinstance(module, BatchNorm) for module in modules)
    if layers and not batches:
        return "transformer"
    return "plain" if epochs is None or epochs > SHORT else "short"


def load_recipe(name: str, *, fresh: bool = False, **changes: Any) -> Recipe:
    """Load a recipe and change some of its settings.

    If the epochs change, the recipe's own milestones, warm-up and ramp move in proportion. If the
    schedule changes, the milestones are dropped, and for `onecycle` the warm-up as well.

    Args:
        name: A key of `RECIPES`, or the path of a TOML file.
        fresh: Whether the student begins with random weights, so that the file's table `fresh`
            replaces some of its settings.
        changes: Settings of `Recipe` that replace those of the file. Losses may be a text such as
            `kd:published`, which brings the weight of the cross-entropy with it.

    Raises:
        UserError: There is no such recipe, a key is unknown, or a value is impossible.
    """
    if name not in RECIPES and not name.endswith(".toml"):
        raise unknown("recipe", name, [*RECIPES, "a file.toml"])
    path = RECIPES.get(name, Path(name))
    given = read(path, fresh=fresh)
    try:
        settings = with_losses(given, given.get("epochs", Recipe.epochs))
    except UserError as error:
        raise UserError(f"{path}: losses: {error}") from error
    try:
        Recipe(**settings)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    epochs = changes.get("epochs", settings.get("epochs", Recipe.epochs))
    own = given if "losses" in changes else settings  # what losses bring goes with them
    return Recipe(**{**own, **_moved(own, changes), **with_losses(changes, epochs)})


def recorded_recipe(record: Mapping[str, Any], **changes: Any) -> Recipe:
    """Return the recipe that a training was begun with, with some settings changed.

    A setting that an older version did not have takes its default.

    Raises:
        UserError: A value is impossible.
    """
    before = {name: record[name] for name in _TYPES.keys() & record.keys()}
    before["milestones"] = tuple(before.get("milestones", ()))
    epochs = changes.get("epochs", before.get("epochs", Recipe.epochs))
    return Recipe(**{**before, **with_losses(changes, epochs)})


def with_losses(settings: Mapping[str, Any], epochs: int) -> dict[str, Any]:
    """Replace a text of losses by weights, beside the settings that published weights bring."""
    text = settings.get("losses")
    if not isinstance(text, str):
        return dict(settings)
    return {**published_settings(text, epochs), **settings, "losses": parse_losses(text)}


def _moved(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recipe's milestones, warm-up and ramp for other epochs or another schedule."""
    before = settings.get("epochs", Recipe.epochs)
    now = changes.get("epochs", before)
    if not max(before, now) < LARGEST:
        raise UserError(f"epochs must be below {LARGEST:g}")
    milestones = tuple(epoch * now / before for epoch in settings.get("milestones", ()))
    warmup = settings.get("warmup_epochs", 0.0) * now / before
    schedule = changes.get("schedule", settings.get("schedule", Recipe.schedule))
    return {
        "milestones": milestones if schedule == "step" else (),
        "warmup_epochs": 0.0 if schedule == "onecycle" else warmup,
        "ramp_epochs": settings.get("ramp_epochs", 0.0) * now / before,
    }


def read(path: Path, *, fresh: bool = False) -> dict[str, Any]:
    """Read the settings in a TOML file, or those for a fresh student, and check their types.

    Raises:
        UserError: The file cannot be read, a key is unknown, or a value has another type.
    """
    given = read_toml(path)
    table = given.pop(FRESH_TABLE, {})
    if not isinstance(table, dict):
        raise UserError(f"{path}: {FRESH_TABLE} must be a table of settings, not {table!r}")
    whole, own = (
        {key: _checked(path, key, value) for key, value in part.items()} for part in (given, table)
    )
    return {**whole, **own} if fresh else whole


def _checked(path: Path, key: str, value: object) -> Any:
    if key not in _TYPES:
        raise UserError(f"{path}: {unknown('key', key, _TYPES)}")
    kinds, said = _KINDS[_TYPES[key]]
    if not _is(value, kinds) or not all(_is(each, (int, float)) for each in _inner(value)):
        raise UserError(f"{path}: {key} must be {said}, not {value!r}")
    if key == "losses" and isinstance(value, Mapping):
        try:
            return combined(value.items())
        except UserError as error:
            raise UserError(f"{path}: losses: {error}") from error
    return tuple(value) if isinstance(value, list) else value


def _is(value: object, kinds: tuple[type, ...]) -> bool:
    """Whether a value has one of these types; true and false are no numbers."""
    return isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))


def _inner(value: object) -> list[object]:
    if isinstance(value, Mapping):
        return list(value.values())
    return value if isinstance(value, list) else []
