"""Reading and writing that loses nothing: a file is there whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from diswot.errors import UserError


def write(path: Path, save: Callable[[str], object]) -> None:
    """Let `save` write to a file beside `path`, and put it in the place of `path` when done.

    Raises:
        UserError: It cannot be written; what was there before is there still.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save(str(temporary))
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise UserError(f"cannot write {path}: {_reason(error)}") from error
    finally:
        if temporary.parent.is_dir():
            temporary.unlink(missing_ok=True)


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
        raise UserError(f"cannot read {path}: {_reason(error)}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is not what diswot writes")
    return value


def save_weights(model: nn.Module, path: Path) -> None:
    """Write a network's state dict as safetensors; tensors that share memory are written apart."""
    state = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in model.state_dict().items()
    }
    write(path, lambda temporary: save_file(state, temporary))


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict: safetensors, or saved by torch, alone or in a checkpoint.

    Raises:
        UserError: There is no such file, or no state dict in it.
    """
    if not path.is_file():
        raise UserError(f"no such weights: {path}")
    if path.suffix == ".safetensors":
        try:
            return dict(load_file(path))
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path} cannot be read: {_reason(error)}") from error
    state = load_tensors(path)
    inner = (state.get(key) for key in ("state_dict", "model_state_dict", "model", "student"))
    state = next((value for value in inner if isinstance(value, dict)), state)
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} holds no state dict")
    return state


def load_tensors(path: Path) -> dict[str, Any]:
    """Read what torch saved: tensors and plain values, nothing else is unpickled.

    Raises:
        UserError: The file cannot be read so.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"cannot read {path}: {_reason(error)}") from error
    except Exception as error:  # a damaged file makes torch raise whatever comes
        raise UserError(f"{path} is no file of tensors and plain values saved by torch") from error
    if not isinstance(state, dict):
        raise UserError(f"{path} is not what diswot writes")
    return state


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or " ".join(str(error).split())
