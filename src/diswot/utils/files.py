"""Atomic writing of files, and reading of JSON and TOML."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from diswot.errors import UserError


def write(path: Path, save: Callable[[str], object]) -> None:
    """Write a file atomically: a failure leaves the earlier file as it was.

    The folder is made if need be. `save` writes the content to a path, which is a temporary file in
    the same folder.

    Raises:
        UserError: The file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save(str(temporary))
        with temporary.open("r+b") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise UserError(f"cannot write {path}: {reason(error)}") from error
    finally:
        if temporary.parent.is_dir():
            temporary.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    """Write one JSON document, as `write` does."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, as `write` does."""
    write(path, lambda temporary: Path(temporary).write_text(text, encoding="utf-8"))


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON object.

    Raises:
        UserError: The file cannot be read, or holds no JSON object.
    """
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {reason(error)}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is not what diswot writes")
    return value


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        UserError: The file cannot be read.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {reason(error)}") from error


def reason(error: Exception) -> str:
    """Return why a file cannot be used, in one line."""
    return getattr(error, "strerror", None) or " ".join(str(error).split())
