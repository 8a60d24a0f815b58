"""Atomic writing of files, and reading of JSON, TOML, state dicts and checkpoints."""

from __future__ import annotations

import json
import logging
import os
import tomllib
import warnings
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from diswot.errors import UserError
from diswot.utils.plain_pickle import STAND_INS, Dropped

_log = logging.getLogger("diswot")

# Keys under which training scripts store a state dict, in the order of the search; those of moving
# averages of the weights come first, as they are what was tested.
_AVERAGES = (
    *("state_dict_ema", "model_ema", "ema_state_dict", "model_ema_state_dict", "ema_model", "ema"),
    "params_ema",
)
_WRAPPERS = (
    *("state_dict", "model_state_dict", "model_state", "model", "student", "net", "network"),
    *("teacher", "weights", "params"),
)
_PLAIN: list[Any] = [Namespace, *STAND_INS]


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
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise UserError(f"cannot write {path}: {_reason(error)}") from error
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
        raise UserError(f"cannot read {path}: {_reason(error)}") from error
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
        raise UserError(f"cannot read {path}: {_reason(error)}") from error


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the state dict of a network as safetensors; each tensor is written on its own."""
    state = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in model.state_dict().items()
    }
    write(path, lambda temporary: save_file(state, temporary))


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict from safetensors, or from a file of torch, alone or in a checkpoint.

    Raises:
        UserError: There is no such file, or it holds no state dict.
    """
    if not path.is_file():
        there = sorted(path.glob("*.safetensors")) + sorted(path.glob("*.pt*"))
        hint = f"; it is a folder that holds {there[0]}" if there else ""
        raise UserError(f"no such weights: {path}{hint}")
    if path.suffix == ".safetensors":
        try:
            return dict(load_file(path))
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path} cannot be read: {_reason(error)}") from error
    state = load_tensors(path)
    while key := next((k for k in (*_AVERAGES, *_WRAPPERS) if _holds_weights(state.get(k))), None):
        beside = next((k for k in _WRAPPERS if _holds_weights(state.get(k))), None)
        if key in _AVERAGES and beside is not None:
            _log.warning("%s: of %s and %s the average is taken, %s", path, beside, key, key)
        state = state[key]
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        others = sorted({_kind(v) for v in state.values()} - {"Tensor", "Parameter"})
        kinds = f": besides tensors it has {', '.join(others)}" if others else ""
        raise UserError(f"{path} holds no state dict{kinds}")
    return state


def _kind(value: object) -> str:
    return "arrays of NumPy, or paths" if isinstance(value, Dropped) else type(value).__name__


def _holds_weights(value: object) -> bool:
    """Say whether a value is a dict with a tensor in it, at any depth."""
    inner = value.values() if isinstance(value, dict) else ()
    return any(isinstance(each, Tensor) or _holds_weights(each) for each in inner)


def load_tensors(path: Path) -> dict[str, Any]:
    """Read a dict that torch saved; only tensors and plain values are unpickled.

    Training scripts often store their options and results with the weights. An `argparse.Namespace`
    counts as plain, since it only holds values; for NumPy's numbers and for paths there are
    stand-ins, so that no function of the file is called.

    Raises:
        UserError: The file cannot be read, or holds other objects.
    """
    try:
        path.open("rb").close()
    except OSError as error:
        raise UserError(f"cannot read {path}: {_reason(error)}") from error
    try:
        with safe_globals(_PLAIN), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on forms that are read all the same, or refused
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes torch raise anything
        what = f"{path} is no file of tensors and plain values saved by torch"
        script = ": it is TorchScript; save model.state_dict()" * ("TorchScript" in str(error))
        raise UserError(f"{what}{script or _unsafe(path)}") from error
    if not isinstance(state, dict):
        raise UserError(f"{path} holds a {type(state).__name__}, not a dict by name")
    return state


def _unsafe(path: Path) -> str:
    """Name the objects of a file that would run code when loaded, if the file can be read."""
    try:
        with safe_globals(_PLAIN):
            names = get_unsafe_globals_in_checkpoint(str(path))
    except Exception:  # a damaged file makes torch raise anything
        return ""
    if not names:
        return ""
    held = ", ".join(sorted(map(str, names))[:3])
    return f": it holds {held}, and loading these could run code; save model.state_dict()"


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or " ".join(str(error).split())
