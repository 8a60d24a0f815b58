"""Teachers of the study that are in no table of the package."""

from __future__ import annotations

import torch
from torch import nn

from diswot.spaces import nasbench101
from diswot.spaces.registry import build_network


def wide(classes: int = 100) -> nn.Module:
    """A NAS-Bench-101 network, so that its classifier is as wide as its students': 512 channels.

    Two 3x3 convolutions a cell and its input beside them: 20.4 million parameters.
    """
    matrix = [[0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
    convolution = nasbench101.OPERATIONS[0]
    params = nasbench101.from_matrix(matrix, ["input", convolution, convolution, "output"])
    with torch.random.fork_rng(devices=[]):
        return build_network(lambda trial: nasbench101.build(trial, classes), params)
