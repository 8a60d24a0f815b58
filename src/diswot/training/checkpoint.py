"""The state of a training at the end of an epoch, on disk."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from diswot.errors import UserError
from diswot.utils import files, jsonl

CHECKPOINT, HISTORY, WEIGHTS = "checkpoint.pt", "history.jsonl", "student.safetensors"

Row = dict[str, float]
Facts = Mapping[str, Any]
Parts = Mapping[str, nn.Module | Optimizer]


def save(folder: Path, facts: Facts, parts: Parts, history: list[Row]) -> None:
    """Write what a training goes on from, and the history as lines of JSON.

    Args:
        folder: Made if it is not there.
        facts: Plain values that a training which goes on must share.
        parts: What has a state, by name.
        history: A row an epoch.

    Raises:
        UserError: It cannot be written; the last checkpoint is there still.
    """
    state = {
        "facts": _plain(facts),
        "history": history,
        **{name: part.state_dict() for name, part in parts.items()},
    }
    files.write(folder / CHECKPOINT, lambda path: torch.save(state, path))
    jsonl.write_lines(folder / HISTORY, history)


def load(
    folder: Path, facts: Facts, parts: Parts, absent: Facts = MappingProxyType({})
) -> list[Row]:
    """Put the parts, in their order, into the states of the checkpoint; the history up to there.

    Args:
        folder: Of the training.
        facts: Which it must share.
        parts: What has a state, by name.
        absent: Values of facts that an older version did not know of.

    Raises:
        UserError: The checkpoint cannot be read, or is another training's.
    """
    path = folder / CHECKPOINT
    state = files.load_tensors(path)
    if not {"facts", "history", *parts} <= state.keys():
        raise UserError(f"{path} is not what diswot writes")
    known = {**_plain(absent), **state["facts"]}
    for name, now in _plain(facts).items():
        if (before := known.get(name)) != now:
            raise UserError(f"the training to resume has {name} = {before!r}, not {now!r}")
    try:
        for name, part in parts.items():
            part.load_state_dict(state[name])
    except (RuntimeError, ValueError) as error:
        raise UserError(f"the training to resume in {folder} has another student") from error
    history: list[Row] = state["history"]
    return history


def checksum(model: nn.Module) -> int:
    """Of all weights and buffers."""
    total = 0
    for value in model.state_dict().values():
        flat = value.detach().cpu().contiguous().flatten()
        total = zlib.crc32(flat.view(torch.uint8).numpy(), total)
    return total


def _plain(facts: Facts) -> dict[str, Any]:
    """The same as JSON knows them: what was stored compares equal to what was given."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(facts), default=float))
    return plain
