"""Libraries that an extra brings, and what they raise told in one line."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from diswot.errors import UserError

_CHATTY = ("datasets", "huggingface_hub", "timm", "transformers")


def imported(module: str, prefix: str, extra: str = "hf") -> Any:
    """A module that an extra brings.

    Raises:
        UserError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise UserError(f"{prefix}: needs {package}: pip install 'diswot[{extra}]'") from error


@contextmanager
def told(name: str, doing: str) -> Iterator[None]:
    """Turn whatever a library raises into one line that names the thing, and hush its log."""
    logs = [logging.getLogger(library) for library in _CHATTY]
    levels = [log.level for log in logs]
    try:
        for log in logs:
            log.setLevel(logging.ERROR)
        yield
    except UserError:
        raise
    except Exception as error:  # whatever a library or its network access raises
        raise UserError(f"{name} {doing}: {reason(error)}") from error
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)


def reason(error: BaseException) -> str:
    """The first sentence of what was raised, with its kind."""
    text = next(iter(str(error).strip().splitlines()), "").partition(". ")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
