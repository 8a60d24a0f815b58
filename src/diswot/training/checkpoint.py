"""Checkpoints: the state of a training at the end of an epoch, on disk."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from diswot.errors import UserError
from diswot.utils import files, jsonl, state_dicts
from diswot.utils.agreement import plain, require_same

CHECKPOINT, HISTORY, WEIGHTS = "checkpoint.pt", "history.jsonl", "student.safetensors"

EpochRow = dict[str, float]
Settings = Mapping[str, Any]
Stateful = Mapping[str, nn.Module | Optimizer]


def save(
    folder: Path,
    settings: Settings,
    parts: Stateful,
    history: list[EpochRow],
    notes: Settings = MappingProxyType({}),
) -> None:
    """Write a checkpoint, and the history as lines of JSON.

    Args:
        folder: Made if it is missing.
        settings: Plain values that a resumed training must share.
        parts: What has a state, by name.
        history: One row an epoch.
        notes: Plain values that a resumed training need not share.

    Raises:
        UserError: The checkpoint cannot be written. The previous one remains.
    """
    state = {
        "facts": plain(settings),
        "notes": plain(notes),
        "history": history,
        **{name: part.state_dict() for name, part in parts.items()},
    }
    files.write(folder / CHECKPOINT, lambda path: torch.save(state, path))
    jsonl.write_lines(folder / HISTORY, history)


def recorded(folder: Path) -> Settings:
    """Return the settings and notes of the checkpoint in a folder; empty without a checkpoint.

    Raises:
        UserError: The checkpoint cannot be read.
    """
    path = folder / CHECKPOINT
    state = state_dicts.load_tensors(path) if path.exists() else {}
    return {**state.get("notes", {}), **state.get("facts", {})}


def load(
    folder: Path, settings: Settings, parts: Stateful, absent: Settings = MappingProxyType({})
) -> tuple[list[EpochRow], Settings]:
    """Load the states of a checkpoint into the parts, and return the history and the notes.

    Args:
        folder: Folder of the training.
        settings: Plain values that the checkpoint must share.
        parts: What has a state, by name; loaded in this order.
        absent: Values of the settings that an older version did not have.

    Raises:
        UserError: The checkpoint cannot be read, or belongs to another training.
    """
    path = folder / CHECKPOINT
    state = state_dicts.load_tensors(path)
    if not {"facts", "history", *parts} <= state.keys():
        raise UserError(f"{path} is not what diswot writes")
    require_same({**absent, **state["facts"]}, settings, "the training to resume")
    for name, part in parts.items():
        try:
            part.load_state_dict(_renamed(state[name]) if name == "average" else state[name])
        except (RuntimeError, ValueError) as error:
            raise UserError(f"the training to resume in {folder} has another {name}") from error
    return state["history"], state.get("notes", {})


def _renamed(state: dict[str, Any]) -> dict[str, Any]:
    """Rename the averaged weights of version 0.1, which had a prefix and a counter beside them."""
    weights = {name: value for name, value in state.items() if name != "steps"}
    if len(weights) == len(state) or not all(name.startswith("model.") for name in weights):
        return state
    return {name.removeprefix("model."): value for name, value in weights.items()}


def checksum(model: nn.Module) -> int:
    """Return the CRC-32 of all weights and buffers."""
    total = 0
    for value in model.state_dict().values():
        flat = value.detach().cpu().contiguous().flatten()
        total = zlib.crc32(flat.view(torch.uint8).numpy(), total)
    return total
