"""Segmentation: one class a pixel, measured by the mean intersection over union.

Letters: B images, K classes, H x W pixels, h x w positions of the logits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diswot.data.dataset import Dataset
from diswot.errors import UserError
from diswot.observation.rows import IGNORED, logits_of, resized_logits
from diswot.tasks.classification import check_logits
from diswot.tasks.task import Fit, Results, Task, of_batch, summed


def two_masks(data: Dataset) -> Tensor:
    """Return the first class as that of all pixels of two images, 2 x H x W."""
    return torch.zeros(2, *data.image_shape[1:], dtype=torch.int64)


def confusion(logits: Tensor, targets: Tensor) -> Tensor:
    """Return how many pixels of each class are predicted to be of each class, K x K.

    `IGNORED` pixels are not counted.
    """
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    height, width = targets.shape[1:]
    predicted = resized_logits(logits, (height, width)).argmax(1)
    counts = multiclass_confusion_matrix(
        predicted, targets, num_classes=logits.shape[1], ignore_index=IGNORED, validate_args=False
    )
    return counts.double()


def intersections_over_union(counts: Tensor, _: int) -> Results:
    """Return the IoU of each class, and their mean without classes that never occur, in %."""
    hits = counts.diagonal()
    ious = 100 * hits / (counts.sum(0) + counts.sum(1) - hits)
    return Results({"test_miou": float(ious.nanmean())}, ious)


def check_positions(fit: Fit, outputs: object) -> None:
    """Check that the outputs for two images are one logit a class for each position.

    Raises:
        UserError: They are not.
    """
    logits = logits_of(outputs)
    if logits.ndim != 4:
        raise UserError(
            f"the {fit.role} gives logits of shape {tuple(logits.shape)}, and segmentation needs "
            "them for each position: B x K x H x W"
        )
    check_logits(fit, logits.mean((2, 3)))


SEGMENTATION = Task(
    summary="one class a pixel: folders of images and masks",
    result="test_miou",
    measure="test mIoU",
    class_measure="IoU",
    example=two_masks,
    outputs=of_batch,
    predictions=logits_of,
    count=confusion,
    combine=summed,
    results=intersections_over_union,
    check=check_positions,
)
