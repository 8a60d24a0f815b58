"""Imports of optional libraries, and their exceptions as errors of one line."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from diswot.errors import UserError

_LOGGING = ("datasets", "huggingface_hub", "timm", "transformers")


def imported(module: str, prefix: str, extra: str = "hf") -> Any:
    """Import a module of an optional library.

    Args:
        module: Name of the module.
        prefix: What needs the module; the error begins with it.
        extra: Extra of diswot that installs the library; empty if diswot itself brings it.

    Raises:
        UserError: The library is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        wanted = f"'diswot[{extra}]'" if extra else package
        raise UserError(f"{prefix}: needs {package}: pip install {wanted}") from error


@contextmanager
def one_line_errors(name: str, failure: str) -> Iterator[None]:
    """Turn any exception of a library into a `UserError` of one line, and silence its log.

    The error begins with the name that the user asked for, and with the failure, such as `cannot
    be read`.
    """
    logs = [logging.getLogger(library) for library in _LOGGING]
    levels = [log.level for log in logs]
    try:
        for log in logs:
            log.setLevel(logging.ERROR)
        yield
    except UserError:
        raise
    except Exception as error:  # a library or its network access may raise anything
        raise UserError(f"{name} {failure}: {first_sentence(error)}") from error
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)


def first_sentence(error: BaseException) -> str:
    """Return the type of an exception and the first sentence of its message."""
    text = next(iter(str(error).strip().splitlines()), "").partition(". ")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
