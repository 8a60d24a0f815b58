"""Networks that need care before they are measured: refused by name, or made float32."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from diswot.errors import UserError

T = TypeVar("T")


def usable(model: T, *, meta: bool = False) -> T:
    """Return a network with float32 weights, changed in place; anything else as it is.

    If `meta`, it may be on the meta device, without weights.

    Raises:
        UserError: It cannot be measured; the error names the reason.
    """
    if not isinstance(model, nn.Module):
        return model
    refuse_unsupported(model, meta=meta)
    if _other_precision(model):
        model.float()
    return model


def refuse_unsupported(model: nn.Module, *, meta: bool = False, float32: bool = False) -> None:
    """Refuse a network that cannot be measured.

    If `meta`, it may be on the meta device; if `float32`, its weights must be of that type.

    Raises:
        UserError: It is TorchScript, has lazy layers, has no weights or other weights.
    """
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise UserError(
            "the network is TorchScript, whose layers cannot be observed; give the Python module"
        )
    tensors = [*model.parameters(), *model.buffers()]
    if any(map(is_lazy, tensors)):
        raise UserError(
            "the network has lazy layers without shapes; run it on a batch before it is returned"
        )
    if not meta and any(tensor.is_meta for tensor in tensors):
        raise UserError("the network has no weights: it was built on the meta device")
    if float32 and (other := _other_precision(model)):
        kind = str(other).removeprefix("torch.")
        raise UserError(f"the network has weights of {kind}; make them float32: model.float()")


def _other_precision(model: nn.Module) -> torch.dtype | None:
    """Return a type of floating-point weights other than float32; None if there is none."""
    kinds = {each.dtype for each in model.parameters() if each.is_floating_point()}
    return min(kinds - {torch.float32}, key=str, default=None)
