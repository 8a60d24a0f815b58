"""What is named on the command line, made: data, batches, teachers, students."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diswot.errors import UserError, unknown

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from diswot.data import Batch, Data


def from_root(name: str) -> str:
    """A name that is a path, from the root on, so that a run goes on from any folder."""
    from diswot import userfile
    from diswot.data import SETS

    is_path = userfile.is_spec(name) or (name not in SETS and bool(name) and Path(name).is_dir())
    return userfile.absolute(name) if is_path else name


def data_set(name: str, classes: int | None, size: int | None, root: str | Path | None) -> Data:
    """The data of that name; `classes` is for noise, and else a check."""
    from diswot import data

    images = data.get(from_root(name), classes=classes, size=size, root=root)
    if classes is not None and classes != len(images.classes):
        raise UserError(f"{name} has {len(images.classes)} classes, not {classes}")
    return images


def scoring_batches(images: Data, size: int, repeats: int, seed: int) -> list[Batch]:
    """One batch a repeat."""
    if repeats < 1:
        raise UserError(f"repeats must be at least 1, not {repeats}")
    return [images.batch(size, seed, repeat) for repeat in range(repeats)]


def teaching(name: str, classes: int, weights: str | Path | None) -> nn.Module:
    """A teacher, with its trained weights if there are any."""
    from diswot import teachers

    model = teachers.get(name, classes)
    if weights is not None:
        teachers.load_weights(model, weights)
    return model


def student_builder(
    text: str, space: str, classes: int, image_size: int
) -> tuple[Callable[[], nn.Module], Any]:
    """How to build a student named by a JSON dict of parameters, or as teachers are.

    Returns:
        A function of nothing, and the parameters or the name.
    """
    from diswot import spaces, teachers, userfile

    if not text.lstrip().startswith("{"):
        if not userfile.is_spec(text) and text not in teachers.TEACHERS:
            raise unknown("student", text, [*teachers.TEACHERS, "parameters as JSON"])
        return teachers.builder(text, classes), text
    try:
        params = json.loads(text)
    except ValueError as error:
        raise UserError(f"the student's parameters are no JSON: {error}") from error
    build = spaces.get(space, classes, image_size)
    spaces.network(build, params)
    return partial(spaces.network, build, params), params
