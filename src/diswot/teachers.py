"""Networks by name, to teach or to compare with, and the weights of a trained one."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from diswot import userfile
from diswot.errors import UserError, unknown
from diswot.files import load_tensors
from diswot.spaces.cifar_resnet import CifarResNet

TEACHERS = {f"resnet{6 * n + 2}": partial(CifarResNet, (n, n, n)) for n in (3, 5, 7, 9, 18)}


def get(name: str, classes: int = 100) -> nn.Module:
    """The network of that name, freshly initialised by its own rules.

    Args:
        name: A key of `TEACHERS` (CIFAR ResNets, He et al., CVPR 2016), or `file.py:function`; the
            function returns a network and, if it likes, takes `classes`.
        classes: Number of logits, K.

    Raises:
        UserError: The name is unknown.
    """
    if userfile.is_spec(name):
        model = userfile.load(name, classes=classes)()
        if not isinstance(model, nn.Module):
            raise UserError(f"{name} must return a torch module, not a {type(model).__name__}")
        return model
    if name not in TEACHERS:
        raise unknown("teacher", name, TEACHERS)
    return TEACHERS[name](classes)


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load a trained network's weights: safetensors, or a state dict saved by torch.

    Nothing but tensors is unpickled.

    Raises:
        UserError: The file cannot be read so, or does not fit the network.
    """
    state = _read(Path(path))
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        detail = " ".join(str(error).split())
        raise UserError(f"{path} does not fit the network: {detail[:300]}") from error


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(f"no such weights: {path}")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path} cannot be read: {error}") from error
    state = load_tensors(path)
    state = next((state[k] for k in ("state_dict", "student") if k in state), state)
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"{path} is no state dict")
    return state
