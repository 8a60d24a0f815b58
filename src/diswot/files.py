"""Reading and writing that loses nothing: a file is there whole or not at all."""

from __future__ import annotations

import json
import os
import pickle
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from diswot.errors import UserError


def write(path: Path, save: Callable[[str], object]) -> None:
    """Let `save` write to a file beside `path`, and put it in the place of `path` when done."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        save(temporary)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: object) -> None:
    """Write one JSON document."""
    text = json.dumps(value, indent=2) + "\n"
    write(path, lambda temporary: Path(temporary).write_text(text))


def write_lines(path: Path, rows: Iterable[object]) -> None:
    """Write one line of JSON a row."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    write(path, lambda temporary: Path(temporary).write_text(text))


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON object.

    Raises:
        UserError: There is no such file, or something else in it.
    """
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is not what diswot writes")
    return value


def save_weights(model: nn.Module, path: Path) -> None:
    """Write a network's state dict as safetensors."""
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    write(path, lambda temporary: save_file(state, temporary))


def load_tensors(path: Path) -> dict[str, Any]:
    """Read what torch saved: tensors and plain values, nothing else is unpickled.

    Raises:
        UserError: The file cannot be read so.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise UserError(f"{path} cannot be read: {type(error).__name__}") from error
    if not isinstance(state, dict):
        raise UserError(f"{path} is not what diswot writes")
    return state
