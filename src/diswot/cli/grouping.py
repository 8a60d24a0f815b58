"""Commands whose parameters are dataclasses of options."""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import copy
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, getdoc, signature
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from typer import Option
from typer.models import OptionInfo

from diswot.cli.help import USUAL

CommandFunction = Callable[..., None]

_METAVARS = {str: "TEXT", int: "N", float: "N", Path: "PATH", list[str]: "TEXT"}
_ATTRIBUTE = re.compile(r"^    (\w+): (.+(?:\n        .+)*)", re.MULTILINE)


def grouped(*usual: str) -> Callable[[CommandFunction], CommandFunction]:
    """Give a command one option for each field of its dataclass parameters.

    Typer reads the options of a command from its signature. The decorated command has a flat
    signature; when called, it packs the options into the dataclasses again. Other parameters are
    options as they are.

    The help lists the fields of a dataclass under the name of its parameter, or under the heading
    that the dataclass names in its class variable `headings`. The `usual` options come first, with
    a heading of their own.
    """

    def decorate(function: CommandFunction) -> CommandFunction:
        hints = get_type_hints(function, include_extras=True)
        groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
        flat: dict[str, Parameter] = {}
        for name, parameter in signature(function).parameters.items():
            own = parameter.replace(annotation=hints[name], kind=Parameter.KEYWORD_ONLY)
            options = _options(groups[name], name) if name in groups else [_described(own)]
            assert not flat.keys() & {option.name for option in options}, "an option is there twice"
            flat |= {option.name: option for option in options}
        flat |= {name: _described(flat[name], rich_help_panel=USUAL) for name in usual}

        @wraps(function)
        def command(**given: Any) -> None:
            packed = {
                name: group(**{each.name: given.pop(each.name) for each in fields(group)})
                for name, group in groups.items()
            }
            function(**packed, **given)

        order = [*usual, *(name for name in flat if name not in usual)]
        command.__annotations__ = {}
        command.__signature__ = Signature([flat[name] for name in order])  # type: ignore[attr-defined]
        return command

    return decorate


def _options(group: Any, name: str) -> list[Parameter]:
    """Return the fields of a dataclass as options, with the lines of its docstring as help.

    The name of the command's parameter is the default heading.
    """
    hints = get_type_hints(group, include_extras=True)
    given: dict[str, str] = getattr(group, "headings", {})
    headings = {member: title for title, members in given.items() for member in members.split()}
    helps: dict[str, str] = {}
    for kind in reversed(group.__mro__):
        helps |= dict(_ATTRIBUTE.findall(getdoc(kind) or ""))
    options = []
    for each in sorted(fields(group), key=lambda field: [*headings, field.name].index(field.name)):
        option = Parameter(
            each.name,
            Parameter.KEYWORD_ONLY,
            default=Parameter.empty if each.default is MISSING else each.default,
            annotation=hints[each.name],
        )
        text, heading = helps[each.name], headings.get(each.name, name.capitalize())
        options.append(_described(option, help=" ".join(text.split()), rich_help_panel=heading))
    assert headings.keys() <= helps.keys(), "a heading names an option that is not there"
    return options


def _described(parameter: Parameter, **facts: str) -> Parameter:
    """Return an option with other facts, and with the kind of its value where it has none."""
    hint = parameter.annotation
    plain, option = get_args(hint) if get_origin(hint) is Annotated else (hint, Option())
    option = copy(option)
    kinds = [_METAVARS[each] for each in (plain, *get_args(plain)) if each in _METAVARS]
    if isinstance(option, OptionInfo):
        option.metavar = option.metavar or next(iter(kinds), None)
    for name, value in facts.items():
        setattr(option, name, value)
    return parameter.replace(annotation=Annotated[plain, option])
