"""Scores that a user writes: a function of a candidate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from diswot.errors import UserError
from diswot.proxies.candidate import Candidate
from diswot.utils import user_code


def own_score(name: str, function: Callable[..., Any]) -> Callable[[Candidate], float]:
    """Return a user's function as a score whose errors are one line.

    The function takes a candidate and returns a number, or a tensor of one number; higher is
    better.

    Raises:
        UserError: The function takes another number of arguments. The score raises it if the
            function fails, or returns no number.
    """
    if (count := len(user_code.needed(function))) != 1:
        raise UserError(
            f"{name} is no score: it must take a candidate, or the observations of teacher and "
            f"student, and takes {count} arguments"
        )

    def score(candidate: Candidate) -> float:
        value = user_code.call(name, function, candidate)
        try:
            return float(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"{name} must return a number, not a {type(value).__name__}") from error

    return score
