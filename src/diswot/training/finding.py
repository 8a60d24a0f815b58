"""What is checked of a distillation, what a check finds, and the images that it looks at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor, nn

from diswot.data.dataset import UNLABELLED, Dataset, Split
from diswot.knowledge.losses import translated
from diswot.training.distributed import Processes
from diswot.training.recipe import Recipe

Level = Literal["good", "warning", "wrong"]


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        check: What was looked at.
        level: `wrong` for what makes a distillation useless, `warning` for what may harm it.
        text: What was found, in one line.
        remedy: What to do about it; empty if nothing need be done.
    """

    check: str
    level: Level
    text: str
    remedy: str = ""


@dataclass(frozen=True)
class Distillation:
    """A training that has not begun; its networks are on the device.

    Attributes:
        teacher: Trained network, in evaluation mode.
        student: As it begins the training.
        data: Training and test images.
        recipe: Settings of the training.
        images: Most training images, and most test images, to look at.
        classes: Class of the data of each of the teacher's outputs, -1 for none; None if the
            teacher has the classes of the data.
        processes: This process, whose device computes.
    """

    teacher: nn.Module
    student: nn.Module
    data: Dataset
    recipe: Recipe
    images: int
    classes: Sequence[int] | None
    processes: Processes

    @property
    def shared(self) -> list[str]:
        """Names of the classes that the teacher and the data share."""
        given = range(len(self.data.classes)) if self.classes is None else self.classes
        return [self.data.classes[place] for place in given if place >= 0]


class Sample(NamedTuple):
    """Images of a split, as bytes, N x 3 x S x S, and their labels, N."""

    images: Tensor
    labels: Tensor

    def right(self, logits: Tensor) -> Tensor:
        """Return whether each image that has a label is classified right by logits, N x K."""
        return (logits.argmax(1) == self.labels)[self.labels != UNLABELLED]

    def labelled_as(self, teacher: Sequence[int] | None) -> Sample:
        """Return the images with the teacher's outputs as labels, `UNLABELLED` for none."""
        if teacher is None:
            return self
        return Sample(self.images, translated(self.labels, teacher))

    def known(self) -> Sample:
        """Return the images that have a label."""
        kept = self.labels != UNLABELLED
        return Sample(self.images[kept], self.labels[kept])


def draw_sample(split: Split, count: int, seed: int) -> Sample:
    """Draw at most `count` images of a split at random."""
    order = torch.randperm(len(split), generator=Generator().manual_seed(seed))
    chosen = order[:count]
    return Sample(split.read(chosen.tolist()), split.labels[chosen])
