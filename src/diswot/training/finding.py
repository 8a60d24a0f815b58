"""What a check of a distillation finds, and the images that it looks at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor

from diswot.data.dataset import UNLABELLED, Split
from diswot.knowledge.losses import translated

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
