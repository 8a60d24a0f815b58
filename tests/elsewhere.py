"""A second device made of the first, for tests that all is computed where it should be.

Its tensors hold tensors of the processor and have the processor's results, but for rounding where
these lie in memory in another order; they bear the name of the device `meta`, which has no memory
of its own. As on a GPU, an operation on tensors of both devices is an error, numbers apart.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")
MOVES = (torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default)


class There(Tensor):
    """A tensor of the second device."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> There:
        made: There = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=DEVICE,
        )
        made.inner = inner
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class SecondDevice(TorchDispatchMode):
    """While it lasts, `meta` is the second device.

    Attributes:
        count: Operations that ran there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __enter__(self) -> Any:
        self._before = torch.__future__.get_overwrite_module_params_on_conversion()
        torch.__future__.set_overwrite_module_params_on_conversion(True)  # or `inner` is left
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch.__future__.set_overwrite_module_params_on_conversion(self._before)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = _run(func, args, kwargs or {})
        self.count += any(isinstance(each, There) for each in tree_leaves(made))
        return made


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
    there = [isinstance(each, There) for each in tensors]
    here = [not isinstance(each, There) and each.ndim > 0 for each in tensors]
    if any(there) and any(here) and func not in MOVES:
        raise RuntimeError(f"{func}: tensors on two devices")
    wanted = kwargs.get("device")
    result = func(*tree_map(_inner, args), **tree_map(_inner, kwargs))
    if wanted == DEVICE or (wanted is None and any(there)):
        result = tree_map(lambda each: There(each) if type(each) is Tensor else each, result)
        return return_and_correct_aliasing(func, args, kwargs, result)
    return result


def _inner(value: Any) -> Any:
    if isinstance(value, There):
        return value.inner
    return torch.device("cpu") if value == DEVICE and isinstance(value, torch.device) else value
