"""Trained weights from a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from diswot.errors import UserError
from diswot.utils import state_dicts

_SHOWN = 3  # differences in an error
_COUNTER = ".num_batches_tracked"  # of batch norms: old checkpoints lack it, and nothing needs it


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load trained weights into a network, from safetensors or from a state dict of torch.

    Only tensors are unpickled. All names of the network may stand in the file under one prefix,
    such as the `module.` of DataParallel or the `model.` of Lightning. Then the prefix is removed,
    and what has another name is left out. Weights that do not fit leave the network as it is.

    Raises:
        UserError: The file cannot be read, or the weights do not fit the network.
    """
    state = state_dicts.read_weights(Path(path))
    wanted = model.state_dict()
    prefixes = _prefixes(state, wanted)
    if len(prefixes) > 1:
        names = ", ".join(prefixes)
        raise UserError(
            f"{path} holds several networks that fit, {names}; keep the one that is meant"
        )
    if prefixes:
        (prefix,) = prefixes
        state = {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
    else:
        state = _bare(state, wanted)
    for name in wanted.keys() - state.keys():
        if name.endswith(_COUNTER):
            state[name] = wanted[name]
    if misfit := _misfit(wanted, state):
        raise UserError(f"{path} does not fit the network: {misfit}")
    model.load_state_dict(state)


def _prefixes(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """Return the prefixes under which a state dict has all names of a network, with its shapes.

    If no prefix has the shapes, those with the names alone are returned.
    """
    names = [name for name in wanted if not name.endswith(_COUNTER)]
    if not names:
        return []
    last = max(names, key=len)
    starts = [n.removesuffix(last) for n in state if n.endswith(last)]
    prefixes = [start for start in starts if start.endswith(".") or not start]
    found = [p for p in prefixes if all(p + name in state for name in names)]
    shaped = [p for p in found if all(state[p + n].shape == wanted[n].shape for n in names)]
    return shaped or found


def _bare(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove prefixes that all names share and that no name of the network has."""
    own = {name.partition(".")[0] for name in wanted}
    found = dict(state)
    while len(first := {name.partition(".")[0] for name in found}) == 1 and not first & own:
        if not all(name.partition(".")[2] for name in found):
            break
        found = {name.partition(".")[2]: value for name, value in found.items()}
    return found


def _misfit(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """Describe the first differences of two state dicts and count the others; else nothing."""
    names = wanted.keys() | given.keys()
    found = sorted(text for name in names if (text := _difference(name, wanted, given)))
    if not found:
        return ""
    left = len(found) - _SHOWN
    more = [f"and {left} more difference{'s' * (left > 1)}"] if left > 0 else []
    return ", ".join([*found[:_SHOWN], *more]) + _other_classes(wanted, given)


def _difference(name: str, wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    if name not in given:
        return f"it lacks {name}"
    if name not in wanted:
        return f"it has {name} too"
    shapes = tuple(given[name].shape), tuple(wanted[name].shape)
    if shapes[0] != shapes[1]:
        return f"{name} has the shape {shapes[0]}, not {shapes[1]}"
    if given[name].layout != torch.strided or given[name].is_quantized:
        return f"{name} is sparse or quantised, not plain numbers"
    return f"{name} holds NaN" if given[name].isnan().any() else ""


def _other_classes(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """Describe the numbers of classes, if the state dicts differ only in the head's K."""
    if wanted.keys() != given.keys():
        return ""
    pairs = [(given[name].shape, wanted[name].shape) for name in wanted]
    shapes = [(one, other) for one, other in pairs if one != other]
    if not all(one and other and one[1:] == other[1:] for one, other in shapes):
        return ""
    counts = {(one[0], other[0]) for one, other in shapes}
    if len(shapes) > 2 or len(counts) != 1:
        return ""
    ((trained, asked),) = counts
    return f"; it was trained for {trained} classes, and the data has {asked}"
