"""A user's own function, named on the command line as `file.py:function`."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from diswot.errors import UserError, unknown


def is_spec(name: str) -> bool:
    """Whether a name has the form `file.py:function`."""
    path, _, function = name.rpartition(":")
    return path.endswith(".py") and bool(function)


def load(name: str, **options: Any) -> Callable[..., Any]:
    """Import `file.py` and return its `function`, with those options that it takes bound.

    The file's code is run: it is the user's own.

    Raises:
        UserError: The file or the function in it does not exist, or the file fails to import.
    """
    path, _, attribute = name.rpartition(":")
    if not Path(path).is_file():
        raise UserError(f"no such file: {path}")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"{path} fails to import: {type(error).__name__}: {error}") from error
    functions = {key: value for key, value in vars(module).items() if callable(value)}
    if attribute not in functions:
        raise unknown(f"function in {path}", attribute, functions)
    function = functions[attribute]
    taken = inspect.signature(function).parameters
    return partial(function, **{key: value for key, value in options.items() if key in taken})
