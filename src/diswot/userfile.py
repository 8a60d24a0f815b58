"""A user's own function, named on the command line as `file.py:function`."""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
import traceback
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from diswot.errors import UserError, unknown

_MARK = "__diswot_user_file__"


def is_spec(name: str) -> bool:
    """Whether a name has the form `file.py:function`, or `file.py` with the function forgotten."""
    return name.endswith(".py") or name.rpartition(":")[0].endswith(".py")


def absolute(name: str) -> str:
    """The same name from the root on, so that it holds in any folder."""
    path, colon, function = name.rpartition(":")
    return f"{Path(path).resolve()}{colon}{function}" if path else str(Path(name).resolve())


def load(name: str, **options: Any) -> Callable[..., Any]:
    """Import `file.py` and return its `function`, with those options that it takes bound.

    The file's code is run: it is the user's own. It may import what lies beside it.

    Raises:
        UserError: The file or the function in it does not exist, or the file fails to import.
    """
    if name.endswith(".py"):
        raise UserError(f"name a function in {name}, as {name}:function")
    path, _, attribute = name.rpartition(":")
    if not Path(path).is_file():
        raise UserError(f"no such file: {path}")
    functions = {key: value for key, value in vars(_module(path)).items() if callable(value)}
    if attribute not in functions:
        raise unknown(f"function in {path}", attribute, functions)
    return bind(functions[attribute], **options)


def bind(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """The function with those options bound that it takes."""
    taken = inspect.signature(function).parameters
    return partial(function, **{key: value for key, value in options.items() if key in taken})


def loaded() -> tuple[str, ...]:
    """The users' files that were imported and still lie there, for another process to import."""
    modules = [module for module in sys.modules.values() if _MARK in vars(module)]
    return tuple(
        path for path in (str(module.__file__) for module in modules) if Path(path).is_file()
    )


def load_file(path: str) -> None:
    """Import a user's file, if it is not; what is pickled of it can be unpickled then."""
    if path not in loaded():
        _module(path)


def _module(path: str) -> ModuleType:
    """Run a file as a module, known to Python as dataclasses and pickles need it."""
    place = Path(path).resolve()
    unique = re.sub(r"\W", "_", f"{place.stem}_{zlib.crc32(bytes(place)):08x}")
    spec = importlib.util.spec_from_file_location(unique, place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    setattr(module, _MARK, True)
    sys.modules[spec.name] = module
    if str(place.parent) not in sys.path:
        sys.path.append(str(place.parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever a user's file raises is told in one line
        del sys.modules[spec.name]
        raise UserError(f"{path} fails to import: {explain(error, name=path)}") from error
    return module


def explain(error: BaseException, name: str) -> str:
    """One line: what was raised, and at which line of the file in `name`."""
    text = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
    file = absolute(name).partition(".py")[0] + ".py"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == file]
    return f"{text} (line {lines[-1]})" if lines else text
