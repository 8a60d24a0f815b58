"""Private names of torch on which diswot depends, each with the reason.

Those of Optuna are in `storage/compat.py`: this package knows no studies.
"""

from __future__ import annotations

from torch import _assert as traced_assert  # what torch.fx records for a model's own checks
from torch import _int_mm as int8_matmul  # the only product of int8 matrices; on CPUs 2x as fast
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm  # batch norms of all dimensions
from torch.nn.modules.batchnorm import _NormBase as BatchNormBase  # the base of all batch norms
from torch.nn.modules.conv import _ConvNd as ConvBase  # the base of all convolutions
from torch.utils._device import DeviceContext  # what torch.device is as a context; for subclasses
from torch.utils._python_dispatch import (
    TorchDispatchMode,  # sees each operator; nothing public does
)
from torch.utils._pytree import tree_leaves  # tensors in nested arguments, as operators take them

# The prefix that torch.fx writes for functions of torch.nn.functional that are not Python.
TRACED_FUNCTIONS = "torch._C._nn."

__all__ = [
    "TRACED_FUNCTIONS",
    "BatchNorm",
    "BatchNormBase",
    "ConvBase",
    "DeviceContext",
    "TorchDispatchMode",
    "int8_matmul",
    "traced_assert",
    "tree_leaves",
]
