"""Knowledge distances that a user writes: a function of the observations of teacher and student."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

from torch import Tensor

from diswot.errors import UserError
from diswot.observation.observe import Observation
from diswot.utils import user_code


def own_distance(name: str, function: Callable[..., Any]) -> Callable[..., Tensor]:
    """Return a user's function as a distance whose errors are one line.

    The function takes the observations of teacher and student and returns a scalar, lower where
    the two agree more.

    Raises:
        UserError: The function takes another number of arguments. The distance raises it if the
            function fails, or returns no scalar that depends on the student.
    """
    if (count := len(user_code.needed(function))) != 2:
        raise UserError(
            f"{name} is no knowledge distance: it must take the observations of teacher and "
            f"student, and takes {count} arguments"
        )

    @wraps(function)
    def distance(teacher: Observation, student: Observation, **settings: Any) -> Tensor:
        value = user_code.call(name, function, teacher, student, **settings)
        return _scalar(name, value, student)

    return distance


def _scalar(name: str, value: object, student: Observation) -> Tensor:
    """Refuse a value that is no scalar, or from which the student cannot learn."""
    if not isinstance(value, Tensor) or value.numel() != 1:
        shape = f" of shape {tuple(value.shape)}" if isinstance(value, Tensor) else ""
        kind = type(value).__name__
        raise UserError(f"{name} must return a scalar tensor, not a {kind}{shape}")
    if student.logits.requires_grad and not value.requires_grad:
        raise UserError(f"{name} has no gradient: its value does not depend on the student")
    return value.reshape(())


def summary_of(function: Callable[..., Any]) -> str:
    """Return the first line of a function's docstring; empty without one."""
    return (inspect.getdoc(function) or "").partition("\n")[0]
