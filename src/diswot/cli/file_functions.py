"""What the functions of a user's file can serve for, for `diswot list --file`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from diswot.errors import UserError
from diswot.utils import user_code

SEED = "seed"


def functions_of(path: str) -> dict[str, list[str]]:
    """Return the options that each function of a file can be given to, and its first line."""
    from diswot.knowledge.own import summary_of
    from diswot.knowledge.registry import Knowledge
    from diswot.proxies.registry import Proxy

    found: dict[str, list[str]] = {}
    for name, value in user_code.own_members(path, (Knowledge, Proxy)).items():
        if isinstance(value, Proxy):
            found[name] = ["proxy", value.summary]
        elif isinstance(value, Knowledge):
            found[name] = ["losses, proxy", value.summary]
        elif serves := options_of(value):
            found[name] = [", ".join(serves), summary_of(value)]
    if not found:
        raise UserError(f"{path} has no function that an option takes")
    return found


def options_of(function: Callable[..., Any]) -> list[str]:
    """Return the options that take a function, by its signature.

    Where the signature does not settle it, the likeliest ones; none if no option takes it.
    """
    given = {name for names in user_code.ALIASES.values() for name in names} | {SEED}
    needed = [each for each in user_code.needed(function) if each.name not in given]
    if len(needed) == 2:
        return ["losses", "proxy"]
    if len(needed) == 1:
        hint = f"{needed[0].name} {needed[0].annotation}".lower()
        known = {"trial": "space", "candidate": "proxy"}
        options = [option for word, option in known.items() if word in hint]
        return options or _returned(function, {"module": "space", "float": "proxy"})
    return [] if needed else _of_makers(function)


def _of_makers(function: Callable[..., Any]) -> list[str]:
    """Return the options that take a function without arguments."""
    kinds = {"module": "teacher", "dataset": "data", "loader": "data", "sampler": "sampler"}
    options = _returned(function, kinds)
    parameters = set(inspect.signature(function).parameters)
    if len(options) > 1 and SEED in parameters:
        return ["sampler"]
    shaped = {name for names in user_code.ALIASES.values() for name in names}
    if len(options) > 1 and shaped & parameters:
        return ["teacher", "data"]
    return options


def _returned(function: Callable[..., Any], kinds: dict[str, str]) -> list[str]:
    """Return the options of the kinds that a function returns; all if it does not say.

    A class returns its own kind. Keys of `kinds` are parts of names of types, in small letters.
    """
    if isinstance(function, type):
        names = " ".join(each.__name__ for each in function.__mro__).lower()
        return sorted({option for word, option in kinds.items() if word in names})
    said = inspect.signature(function).return_annotation
    options = list(dict.fromkeys(kinds.values()))
    if said is inspect.Signature.empty:
        return options
    text = str(getattr(said, "__name__", said)).lower()
    return [option for word, option in kinds.items() if word in text][:1] or options
