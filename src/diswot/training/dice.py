"""The Dice loss of segmentation.

Letters: B images, K classes, H x W pixels, h x w positions of the logits.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from diswot.observation.rows import IGNORED, resized_logits

_SMOOTH = 1.0  # pixels, added to both sides of the fraction


def dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return 1 - (2 sum p y + 1) / (sum p + sum y + 1), the mean over the classes that occur.

    p are the softmax probabilities of a class, y is 1 where it is the target, and the sums run over
    all pixels of the batch that have a target. Milletari et al., "V-Net", 3DV 2016.

    Args:
        logits: B x K x h x w.
        targets: Class indices, B x H x W; `IGNORED` for a pixel without one.

    Returns:
        A scalar; 0 if no pixel has a target.
    """
    height, width = targets.shape[1:]
    known = targets != IGNORED
    shares = resized_logits(logits, (height, width)).movedim(1, 3)[known].float().softmax(1)
    wanted = one_hot(targets[known].long(), logits.shape[1]).to(shares.dtype)
    hits, counts = (shares * wanted).sum(0), wanted.sum(0)
    losses = 1 - (2 * hits + _SMOOTH) / (shares.sum(0) + counts + _SMOOTH)
    occurring = counts > 0
    return torch.where(occurring, losses, 0).sum() / occurring.sum().clamp_min(1)
