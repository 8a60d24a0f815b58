"""Writing and reading of weights: state dicts in files of safetensors or torch, and checkpoints."""

from __future__ import annotations

import logging
import warnings
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from diswot.errors import UserError
from diswot.utils.files import reason, write
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


def save_weights(model: nn.Module, path: Path) -> None:
    """Write the state dict of a network as safetensors; each tensor is written on its own."""
    state = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in model.state_dict().items()
    }
    write(path, lambda temporary: save_file(state, temporary))


def read_weights(path: Path) -> dict[str, Tensor]:
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
            raise UserError(f"{path} cannot be read: {reason(error)}") from error
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
        raise UserError(f"cannot read {path}: {reason(error)}") from error
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
