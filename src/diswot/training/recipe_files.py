"""Recipes by name: small TOML files, of this package or one's own, whose keys are `Recipe`'s."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from diswot.errors import UserError, unknown
from diswot.training.recipe import Recipe, expand, parse_losses

_HERE = Path(__file__).parent / "recipes"
RECIPES = {path.stem: path for path in sorted(_HERE.glob("*.toml"))}

_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "float | None": ((int, float), "a number"),
    "bool": ((bool,), "true or false"),
    "str": ((str,), "a text"),
    "tuple[float, ...]": ((list,), "a list of numbers"),
    "Mapping[str, float]": ((dict, str), "a table of weights, or a text such as kd:0.9,at:1"),
}
_TYPES = {each.name: str(each.type) for each in fields(Recipe)}


def load_recipe(name: str, **changes: Any) -> Recipe:
    """The recipe of that name or in that file, with some settings changed.

    Where the epochs are changed, the recipe's own milestones move in proportion; where the schedule
    is, they go.

    Args:
        name: A key of `RECIPES`, or the path of a TOML file.
        changes: Settings of `Recipe` that take the place of the file's.

    Raises:
        UserError: There is no such recipe, a key is unknown, or a value impossible.
    """
    if name not in RECIPES and not name.endswith(".toml"):
        raise unknown("recipe", name, [*RECIPES, "a file.toml"])
    path = RECIPES.get(name, Path(name))
    settings = read(path)
    try:
        Recipe(**settings)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return Recipe(**{**settings, **_moved(settings, changes), **changes})


def _moved(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe's milestones as they are with other epochs or another schedule."""
    if "schedule" in changes and changes["schedule"] != settings.get("schedule"):
        return {"milestones": ()}
    before, now = settings.get("epochs", Recipe.epochs), changes.get("epochs")
    if not now:
        return {}
    return {"milestones": tuple(at * now / before for at in settings.get("milestones", ()))}


def read(path: Path) -> dict[str, Any]:
    """The settings in a TOML file, each of its type.

    Raises:
        UserError: The file cannot be read, a key is unknown, or a value of another type.
    """
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UserError(f"cannot read {path}: {reason}") from error
    return {key: _checked(path, key, value) for key, value in given.items()}


def _checked(path: Path, key: str, value: object) -> object:
    if key not in _TYPES:
        raise UserError(f"{path}: {unknown('key', key, _TYPES)}")
    kinds, said = _KINDS[_TYPES[key]]
    if not _is(value, kinds) or not all(_is(each, (int, float)) for each in _inner(value)):
        raise UserError(f"{path}: {key} must be {said}, not {value!r}")
    if key == "losses":
        return _losses(path, value)
    return tuple(value) if isinstance(value, list) else value


def _is(value: object, kinds: tuple[type, ...]) -> bool:
    """Whether a value is of these types; true and false are no numbers."""
    return isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))


def _inner(value: object) -> list[object]:
    if isinstance(value, Mapping):
        return list(value.values())
    return value if isinstance(value, list) else []


def _losses(path: Path, value: Any) -> dict[str, float]:
    try:
        if isinstance(value, str):
            return parse_losses(value)
        weighted = [
            {inner: weight * share for inner, share in expand(name).items()}
            for name, weight in value.items()
        ]
    except UserError as error:
        raise UserError(f"{path}: losses: {error}") from error
    if len(losses := {k: v for each in weighted for k, v in each.items()}) < sum(
        map(len, weighted)
    ):
        raise UserError(f"{path}: losses: a distance is weighted twice")
    return losses
