"""Networks without weights: their shapes alone, for counting and for deciding parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

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
_SAME_SHAPE: frozenset[Callable[..., Any]] = frozenset(
    [
        *(functional.batch_norm, functional.layer_norm),
        *(functional.relu, functional.relu6, functional.hardtanh, functional.hardsigmoid),
        *(functional.silu, functional.gelu, functional.hardswish),
    ]
)


class Weightless(DeviceContext):
    """A context in which tensors are made on the meta device and filling them costs nothing.

    Norms and activations of meta tensors give the shape at once: torch follows each of their
    operators, which takes ten times longer than a convolution.

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
        """Return a meta tensor at once where its values alone change; else do as torch does."""
        if func in _SKIPPED or func in _SAME_SHAPE:
            tensor = args[0] if args else (kwargs or {}).get("tensor")
            if isinstance(tensor, Tensor) and tensor.is_meta:
                new = func in _SAME_SHAPE and not (kwargs or {}).get("inplace")
                return torch.empty_like(tensor) if new else tensor
        return super().__torch_function__(func, types, args, dict(kwargs or {}))  # type: ignore[no-untyped-call]
