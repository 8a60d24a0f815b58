"""What a task is: its predictions and how they are measured.

Letters: B images, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from diswot.data.dataset import Dataset

Network = Callable[..., object]


@dataclass(frozen=True)
class Fit:
    """A network that must fit some data.

    Attributes:
        role: What an error calls the network.
        model: The network.
        data: Names the classes.
        classes: Class of the data of each of the network's outputs. Default: those of the data.
    """

    role: str
    model: nn.Module
    data: Dataset
    classes: Sequence[int] | None = None


class Results(NamedTuple):
    """Test results on some images, in %.

    Attributes:
        means: Results by name.
        by_class: Result of each class, K; NaN for one that never occurs. None if no class has one.
    """

    means: dict[str, float]
    by_class: Tensor | None = None


@dataclass(frozen=True)
class Task:
    """A task: what a network predicts for an image, and how the predictions are measured.

    Attributes:
        summary: One line.
        result: Name of the test result in the history of a training.
        measure: Name of the measure in tables.
        class_measure: Name of the measure of one class; empty if there is none.
        example: Function of the data: targets of two images, with which every loss has a gradient.
        outputs: Function of a network in evaluation mode and normalised images, B x 3 x H x W: what
            the network returns for them.
        predictions: Function of these outputs: one tensor whose first dimension is B.
        count: Function of the predictions and the targets of some test images: what `combine`
            makes one tensor from, over all images and processes.
        combine: Function of several such tensors: the one of all their images.
        results: Function of the tensor of all images and of K: the test results; `result` is the
            first of their means.
        means: Names of the means in a table of classes, in their order.
        check: Function of a network with its data, and of its outputs for two images in evaluation
            mode: raises a `UserError` if they do not fit.
        share: Whether the test result is a share of the test images.
        bf16: Whether predictions in bf16 are precise enough.
    """

    summary: str
    result: str
    measure: str
    class_measure: str
    example: Callable[[Dataset], Tensor]
    outputs: Callable[[Network, Tensor], object]
    predictions: Callable[[object], Tensor]
    count: Callable[[Tensor, Tensor], Tensor]
    combine: Callable[[list[Tensor]], Tensor]
    results: Callable[[Tensor, int], Results]
    check: Callable[[Fit, object], None]
    means: tuple[str, ...] = ("mean",)
    share: bool = False
    bf16: bool = True


def of_batch(model: Network, images: Tensor) -> object:
    """Return the outputs of a network that takes its images as one tensor."""
    return model(images)


def summed(counts: Sequence[Tensor]) -> Tensor:
    """Return the sum of counts of several parts of the test images."""
    return sum(counts[1:], counts[0])


def table(task: Task, results: Results, classes: Sequence[str]) -> list[tuple[str, float]]:
    """Return the result of each class and the means in %, by name; nothing without such results."""
    if results.by_class is None:
        return []
    means = zip(task.means, results.means.values(), strict=True)
    return [*zip(classes, results.by_class.tolist(), strict=True), *means]
