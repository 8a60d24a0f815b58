"""Teachers for the tables of segmentation: large networks of the same spaces.

`semantic`, and so `diswot`, compares classifiers of one width, which the networks of a space share.
"""

from __future__ import annotations

from torch import nn

from diswot.spaces import nasbench_mr, transnas
from diswot.spaces.registry import build_network, create_space

LARGEST = "128-128-2-4-128-2-4-4-128-128-2-4-4-4-128-128-128-2-4-4-4-4-128-128-128-128-128"


def micro(num_classes: int) -> nn.Module:
    """Return the cell of convolutions of 3 x 3 alone."""
    params = transnas.from_micro("3-3-3-3-3-3")
    return build_network(create_space("transnas_micro_seg", num_classes), params)


def macro(num_classes: int) -> nn.Module:
    """Return six modules, of which three double the channels and two halve the size."""
    params = transnas.from_macro("4-2-4-1-1-1")
    return build_network(create_space("transnas_macro_seg", num_classes), params)


def multi_resolution(num_classes: int) -> nn.Module:
    """Return a network of NAS-Bench-MR with all widths 128."""
    params = nasbench_mr.from_arch(LARGEST)
    return build_network(create_space("nasbench_mr_seg", num_classes), params)
