"""The one exception that means: the user can mend this."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_SHOWN, _FEW = 30, 8


class UserError(ValueError):
    """A mistake in the input, told in one line; the command line turns it into exit status 2."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """Say that `name` is no known `kind`, with the nearest names, or all when none is near.

    Of more than `_SHOWN` names only some are told.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if len(names) > _SHOWN:
        names = [*names[:: len(names) // _FEW][:_FEW], f"and {len(names) - _FEW} more"]
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names)}"
    return UserError(f"unknown {kind} {name!r}; {hint}")


class SearchFailed(RuntimeError):
    """No candidate could be scored; the command line turns it into exit status 1."""


class ExportFailed(RuntimeError):
    """What was written does not compute what it should; exit status 1."""
