"""The loss of a network at one batch, for any task.

Letters: B images, H x W pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diswot.observation.boxes import is_boxes
from diswot.observation.detectors import run_detector
from diswot.observation.rows import mean_cross_entropy, summed_cross_entropy


def mean_loss(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy of a network, or the sum of a detector's own losses."""
    if is_boxes(targets):
        return torch.stack(list(run_detector(model, images, targets).values())).sum()
    return mean_cross_entropy(model(images), targets)


def summed_loss(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """Return the sum over images of each image's mean cross-entropy.

    Of a detector it is B times `mean_loss`, since its losses are means over all images or anchors.
    """
    if is_boxes(targets):
        return len(images) * mean_loss(model, images, targets)
    return summed_cross_entropy(model(images), targets)
