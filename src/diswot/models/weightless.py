"""Networks without weights: their shapes alone, for counting and for deciding parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from diswot.utils.compat import DeviceContext

_FILLS = (
    "add_ bernoulli_ clamp_ copy_ div_ erfinv_ exponential_ fill_ mul_ normal_ sub_ uniform_ zero_"
)
_SKIPPED: frozenset[Callable[..., Any]] = frozenset(
    [
        *(getattr(Tensor, name) for name in _FILLS.split()),
        *(f for name, f in vars(nn.init).items() if name.endswith("_") and callable(f)),
    ]
)


class Weightless(DeviceContext):
    """A context in which tensors are made on the meta device and filling them costs nothing.

    `torch.device("meta")` alone runs each initialisation, operator by operator; that takes longer
    than drawing the weights of a small network.
    """

    def __init__(self) -> None:
        super().__init__(torch.device("meta"))

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the tensor itself where a meta tensor is filled; else do as torch does."""
        if func in _SKIPPED:
            tensor = args[0] if args else (kwargs or {}).get("tensor")
            if isinstance(tensor, Tensor) and tensor.is_meta:
                return tensor
        return super().__torch_function__(func, types, args, dict(kwargs or {}))  # type: ignore[no-untyped-call]
