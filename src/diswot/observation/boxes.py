"""Boxes as targets of a batch, and as torchvision's detectors take them.

The targets of B images are one tensor, B x M x 6 in float32. Of each box it holds x1, y1, x2, y2 in
pixels of the batch's images, the class index, and 1 for a crowd or a difficult object, else 0. M is
the largest number of boxes of an image of the data set; rows that are no box have the class
`rows.IGNORED`. Crowds and difficult objects are not learned, and in a test neither found nor
missed.

Letters: B images, M boxes an image, K classes.
"""

from __future__ import annotations

from torch import Tensor

from diswot.observation.rows import IGNORED

COLUMNS = 6
BACKGROUND = 0  # class of torchvision's detectors that is no object


def is_boxes(targets: Tensor) -> bool:
    """Say whether the targets of a batch are boxes, B x M x 6."""
    return targets.ndim == 3 and targets.is_floating_point() and targets.shape[2] == COLUMNS


def box_dicts(targets: Tensor) -> list[dict[str, Tensor]]:
    """Return boxes, B x M x 6, as torchvision's detectors take them in training: a dict an image.

    Returns:
        `boxes`, n x 4 in float32, and `labels`, n, from 1 to K, as 0 is the background. Crowds and
        difficult objects are left out.
    """
    kept = (targets[..., 4] != IGNORED) & (targets[..., 5] == 0)
    return [
        {"boxes": image[keep, :4], "labels": image[keep, 4].long() + BACKGROUND + 1}
        for image, keep in zip(targets, kept, strict=True)
    ]
