"""Classification: one class an image, measured by the accuracy.

Letters: B images, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diswot.data.dataset import Dataset
from diswot.errors import UserError
from diswot.observation.rows import logits_of
from diswot.tasks.task import Fit, Results, Task, of_batch, summed


def two_labels(_: Dataset) -> Tensor:
    """Return the first class as the label of two images, 2."""
    return torch.zeros(2, dtype=torch.int64)


def count_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the number of images whose label has the highest logit, and the number of images."""
    correct = (logits.argmax(1) == labels).sum()
    return torch.stack((correct, correct.new_tensor(len(labels)))).double()


def accuracy(counts: Tensor, _: int) -> Results:
    """Return the share of the images that `count_correct` counts as correct, in %."""
    correct, images = map(float, counts)
    return Results({"test_accuracy": 100 * correct / images})


def check_logits(fit: Fit, outputs: object) -> None:
    """Check that the outputs of a network for two images are one logit a class.

    Raises:
        UserError: They are not.
    """
    shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
    role, data, classes = fit.role, fit.data, fit.classes
    if classes is not None and shape != (2, len(classes)):
        raise UserError(f"the {role} gives {shape} for 2 images, and has {len(classes)} classes")
    if isinstance(outputs, Tensor) and (classes is not None or shape == (2, len(data.classes))):
        _check_values(role, outputs)
        return
    if isinstance(outputs, Tensor) and outputs.shape[:1] == (2,) and outputs.ndim == 2:
        has = f"{data.name} has {len(data.classes)}"
        raise UserError(f"the {role} gives logits for {outputs.shape[1]} classes, and {has}")
    wanted = f"{data.name} with {len(data.classes)} classes"
    raise UserError(f"the {role} gives {shape} for 2 images, which does not fit {wanted}")


def _check_values(role: str, logits: Tensor) -> None:
    """Refuse logits that are not finite, and probabilities in their place, 2 x K."""
    if not logits.isfinite().all():
        raise UserError(f"the {role} gives logits that are not finite: are its weights damaged?")
    sums = logits.float().sum(1)
    if (logits >= 0).all() and torch.allclose(sums, torch.ones_like(sums), rtol=0, atol=1e-5):
        raise UserError(f"the {role} gives probabilities; leave its softmax out, to give logits")


CLASSIFICATION = Task(
    summary="one class an image",
    result="test_accuracy",
    measure="test accuracy",
    class_measure="",
    example=two_labels,
    outputs=of_batch,
    predictions=logits_of,
    count=count_correct,
    combine=summed,
    results=accuracy,
    check=check_logits,
    share=True,
)
