"""Networks by name, to teach or to compare with, and the weights of a trained one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from torch import Tensor, nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from diswot import files, userfile
from diswot.errors import UserError, unknown
from diswot.spaces.cifar_resnet import CifarResNet

TEACHERS = {f"resnet{6 * n + 2}": partial(CifarResNet, (n, n, n)) for n in (3, 5, 7, 9, 18)}


def get(name: str, classes: int = 100) -> nn.Module:
    """The network of that name, freshly initialised by its own rules.

    Args:
        name: A key of `TEACHERS` (CIFAR ResNets, He et al., CVPR 2016), or `file.py:function`; the
            function returns a network and, if it likes, takes `classes`.
        classes: Number of logits, K.

    Raises:
        UserError: The name is unknown, or the user's function fails.
    """
    return builder(name, classes)()


def builder(name: str, classes: int = 100) -> Callable[[], nn.Module]:
    """A function that builds the network of that name; arguments and errors as `get`."""
    if userfile.is_spec(name):
        return partial(_built, name, userfile.load(name, classes=classes))
    if name not in TEACHERS:
        raise unknown("teacher", name, TEACHERS)
    return partial(TEACHERS[name], classes)


def _built(name: str, function: Callable[[], object]) -> nn.Module:
    try:
        model = function()
    except (
        Exception,
        SystemExit,
    ) as error:  # whatever a user's function raises is told in one line
        raise UserError(f"{name} fails: {userfile.explain(error, name)}") from error
    if not isinstance(model, nn.Module):
        raise UserError(f"{name} must return a torch module, not a {type(model).__name__}")
    return model


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load a trained network's weights: safetensors, or a state dict saved by torch.

    Nothing but tensors is unpickled. The network stays as it is where the weights do not fit.

    Raises:
        UserError: The file cannot be read so, or does not fit the network.
    """
    state = files.load_weights(Path(path))
    wanted = model.state_dict()
    if not any(name.startswith("module.") for name in wanted):  # as DataParallel's are named
        consume_prefix_in_state_dict_if_present(state, "module.")
    if misfit := _misfit(wanted, state):
        raise UserError(f"{path} does not fit the network: {misfit}")
    model.load_state_dict(state)


def _misfit(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """The first difference between two state dicts and how many there are, or nothing."""
    differences = [f"it lacks {name}" for name in wanted if name not in given]
    differences += [f"it has {name} too" for name in given if name not in wanted]
    for name in wanted.keys() & given.keys():
        shapes = tuple(given[name].shape), tuple(wanted[name].shape)
        if shapes[0] != shapes[1]:
            differences.append(f"{name} has the shape {shapes[0]}, not {shapes[1]}")
    more = f", and {len(differences) - 1} more differences" if len(differences) > 1 else ""
    return min(differences, default="") + more
