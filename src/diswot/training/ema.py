"""A moving average of a network's weights."""

from __future__ import annotations

import copy

import torch
from torch import nn


class Average(nn.Module):
    """Weights and buffers that follow a network's: each step a share `1 - decay` of the way.

    The decay warms up as (1 + step) / (10 + step), so that the first weights are soon forgotten;
    whole numbers, such as counts of batches, are copied.

    Attributes:
        model: The averaged network, a copy.
    """

    steps: torch.Tensor

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def follow(self, model: nn.Module) -> None:
        """Take a step towards a network's weights."""
        done = int(self.steps)
        share = 1 - min(self.decay, (1 + done) / (10 + done))
        self.steps.fill_(done + 1)
        pairs = zip(self.model.state_dict().values(), model.state_dict().values(), strict=True)
        for ours, theirs in pairs:
            if ours.is_floating_point():
                ours.lerp_(theirs, share)
            else:
                ours.copy_(theirs)
