"""Detection: boxes with classes, measured by the mean average precision.

Networks follow torchvision's convention: a list of images in, a dict an image out. Predictions are
boxes as targets are, with the score in the place of the crowd flag: B x 100 x 6, in float32: x1,
y1, x2, y2 in pixels, the class index, and the score. Rows that are no box have the class `IGNORED`.
Coordinates in bf16 would be multiples of 2 pixels from 256 pixels on.

Letters: B images, N images of the test, M true boxes an image, K classes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from diswot.data.dataset import Dataset
from diswot.errors import UserError
from diswot.observation.boxes import BACKGROUND
from diswot.observation.rows import IGNORED
from diswot.tasks.task import Fit, Network, Results, Task
from diswot.utils.optional_imports import imported

DETECTIONS = 100  # boxes of the highest scores in an image that COCO's protocol counts
_KEYS = ("boxes", "labels", "scores")


def two_boxes(data: Dataset) -> Tensor:
    """Return a box of the first class in the middle of each of two images, 2 x 1 x 6."""
    _, height, width = data.image_shape
    box = [width / 4, height / 4, 3 * width / 4, 3 * height / 4, 0, 0]
    return torch.tensor([[box]] * 2)


def of_list(model: Network, images: Tensor) -> object:
    """Return the outputs of a network that takes a list of images, each 3 x H x W."""
    return model(list(images))


def highest_boxes(outputs: object) -> Tensor:
    """Return the boxes of the highest scores that a detector finds in each image, B x 100 x 6."""
    assert isinstance(outputs, list)
    return torch.stack([_packed(each) for each in outputs])


def _packed(found: dict[str, Tensor]) -> Tensor:
    order = found["scores"].argsort(descending=True, stable=True)[:DETECTIONS]
    classes = found["labels"][order, None] - (BACKGROUND + 1)
    rows = [found["boxes"][order].float(), classes.float(), found["scores"][order, None].float()]
    return pad(torch.cat(rows, 1), (0, 0, 0, DETECTIONS - len(order)), value=IGNORED)


def put_beside(predicted: Tensor, targets: Tensor) -> Tensor:
    """Return the predicted boxes of each image, and the true ones after them, B x (100 + M) x 6.

    The mean average precision ranks the boxes of all images, so that no sum over images gives it.
    """
    return torch.cat((predicted, targets.to(predicted)), 1).cpu()


def mean_average_precision(images: Tensor, classes: int) -> Results:
    """Return the mAP over the thresholds 0.5 to 0.95 of the IoU, that at 0.5, and each class's AP.

    A detection that overlaps with a crowd or a difficult object alone is neither right nor wrong.
    The means are NaN if there is no true box. The boxes are as `put_beside` returns them.
    """
    precision, known = _precisions(images)
    by_class = torch.full((classes,), torch.nan, dtype=torch.float64)
    for place, label in enumerate(known.tolist()):
        if label < classes:  # a detector of a user may find others
            by_class[label] = _mean(precision[..., place])
    return Results({"test_map": _mean(precision), "test_map50": _mean(precision[0])}, by_class)


def _mean(precision: Tensor) -> float:
    """Return the mean in % over the classes that occur; the others have -1."""
    known = precision[precision >= 0].double()
    return 100 * float(known.mean()) if len(known) else torch.nan


def _precisions(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the precision by threshold of the IoU, recall and class, 10 x 101 x k; the classes."""
    imported("faster_coco_eval", "the mean average precision", "detection")
    from torchmetrics.detection import MeanAveragePrecision

    metric: Any = MeanAveragePrecision(backend="faster_coco_eval", extended_summary=True)
    predicted, true = images[:, :DETECTIONS], images[:, DETECTIONS:]
    metric.update(
        [_dict(each, "scores") for each in predicted], [_dict(e, "iscrowd") for e in true]
    )
    result = metric.compute()
    return result["precision"][..., 0, -1], result["classes"].reshape(-1).long()


def _dict(rows: Tensor, last: str) -> dict[str, Tensor]:
    """Return the boxes of an image as torchmetrics takes them, with the last column by its name."""
    rows = rows[rows[:, 4] != IGNORED]
    value = rows[:, 5].long() if last == "iscrowd" else rows[:, 5]
    return {"boxes": rows[:, :4], "labels": rows[:, 4].long(), last: value}


def check_boxes(fit: Fit, outputs: object) -> None:
    """Check that the outputs for two images are boxes, and that the detector has the classes.

    Raises:
        UserError: They are not, or it has others.
    """
    role, data = fit.role, fit.data
    found = outputs if isinstance(outputs, list) else []
    boxes = [each for each in found if isinstance(each, dict) and {*_KEYS} <= each.keys()]
    if not len(found) == len(boxes) == 2:
        raise UserError(
            f"the {role} gives {type(outputs).__name__} for 2 images, and {data.name} needs a "
            "detector: a list with a dict of boxes, labels and scores for each image"
        )
    classes = data.classes if fit.classes is None else fit.classes
    check_head(role, fit.model, data.name, len(classes))


def check_head(role: str, model: nn.Module, data: str, num_classes: int) -> None:
    """Refuse a detector with another number of classes than the data, as far as it is known.

    `role` and `data` are what an error calls them; the number leaves the background out.

    Raises:
        UserError: The number is another.
    """
    if (found := head_classes(model)) not in (None, num_classes + 1):
        raise UserError(
            f"the {role} has outputs for {found} classes, the background included, and "
            f"{data} has {num_classes + 1}"
        )


def head_classes(model: nn.Module) -> int | None:
    """Return the number of classes of a torchvision detector's head, K + 1; None if not known."""
    for module in model.modules():
        head = getattr(module, "classification_head", None)
        found = getattr(head, "num_classes", None) or getattr(head, "num_columns", None)
        found = found or getattr(getattr(module, "cls_score", None), "out_features", None)
        if isinstance(found, int):
            return found
    return None


DETECTION = Task(
    summary="boxes with classes: folders of images and boxes",
    result="test_map",
    measure="test mAP",
    class_measure="AP",
    example=two_boxes,
    outputs=of_list,
    predictions=highest_boxes,
    count=put_beside,
    combine=torch.cat,
    results=mean_average_precision,
    check=check_boxes,
    means=("mean", "mean at an IoU of 0.5"),
    bf16=False,
)
