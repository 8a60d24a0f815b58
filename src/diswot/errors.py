"""Exceptions of diswot: a mistake that the user can correct, and commands that fail."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_SHOWN, _FEW = 30, 8


class UserError(ValueError):
    """A mistake that the user can correct, in one line; the command line exits with status 2."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Return the error for a name that is not known.

    The error lists the nearest names. If no name is near, it lists all names, or a sample of more
    than 30.

    Args:
        kind: The noun for the name, such as `space`.
        name: What the user wrote.
        known: All names that the user can write.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if len(names) > _SHOWN:
        names = [*names[:: len(names) // _FEW][:_FEW], f"and {len(names) - _FEW} more"]
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names) or 'none'}"
    return UserError(f"unknown {kind} {name!r}; {hint}")


def one_line(error: BaseException) -> str:
    """Return the type and the message of an exception in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def first_line(error: BaseException) -> str:
    """Return the first line of the message of an exception; its type if there is no message."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def out_of_memory(error: BaseException) -> bool:
    """Say whether the memory of the CPU or of a GPU was full; torch raises RuntimeErrors then."""
    full = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return full or "can't allocate memory" in str(error) or "not enough memory" in str(error)


class SearchFailed(RuntimeError):
    """A search without a scored candidate, or workers that cannot go on; exit status 1."""


class ExportFailed(RuntimeError):
    """An exported file whose outputs differ from the network's; exit status 1."""
