"""Commands whose parameters are dataclasses of options."""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import copy
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, getdoc, signature
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from typer import Option

Command = Callable[..., None]

_ATTRIBUTE = re.compile(r"^    (\w+): (.+(?:\n        .+)*)", re.MULTILINE)


def grouped(*first: str) -> Callable[[Command], Command]:
    """Give a command one option for each field of its dataclass parameters.

    Typer reads the options of a command from its signature. The decorated command has a flat
    signature; when called, it packs the options into the dataclasses again. Other parameters are
    options as they are.

    Args:
        first: Names of the options that the help lists first. The other options follow in the
            order of the parameters and of the fields.
    """

    def decorate(function: Command) -> Command:
        hints = get_type_hints(function, include_extras=True)
        groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
        flat: dict[str, Parameter] = {}
        for name, parameter in signature(function).parameters.items():
            own = parameter.replace(annotation=hints[name], kind=Parameter.KEYWORD_ONLY)
            options = _options(groups[name]) if name in groups else [own]
            assert not flat.keys() & {option.name for option in options}, "an option is there twice"
            flat |= {option.name: option for option in options}

        @wraps(function)
        def command(**given: Any) -> None:
            packed = {
                name: group(**{each.name: given.pop(each.name) for each in fields(group)})
                for name, group in groups.items()
            }
            function(**packed, **given)

        order = [*first, *(name for name in flat if name not in first)]
        command.__annotations__ = {}
        command.__signature__ = Signature([flat[name] for name in order])  # type: ignore[attr-defined]
        return command

    return decorate


def _options(group: Any) -> list[Parameter]:
    """Return the fields of a dataclass as options, with the lines of its docstring as help."""
    hints = get_type_hints(group, include_extras=True)
    helps: dict[str, str] = {}
    for kind in reversed(group.__mro__):
        helps |= dict(_ATTRIBUTE.findall(getdoc(kind) or ""))
    options = []
    for each in fields(group):
        hint = hints[each.name]
        plain, option = get_args(hint) if get_origin(hint) is Annotated else (hint, Option())
        option = copy(option)
        option.help = " ".join(helps[each.name].split())
        annotation = Annotated[plain, option]  # type: ignore[valid-type]
        default = Parameter.empty if each.default is MISSING else each.default
        options.append(
            Parameter(each.name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        )
    return options
