"""What a proxy may look at."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import nn

from diswot.data import Batch
from diswot.observe import Observation, observe


@dataclass(frozen=True)
class Candidate:
    """A student about to be scored.

    Attributes:
        student: With the weights it is scored with.
        teacher: What was observed of the teacher on the batch.
        batch: Normalised images and labels.
    """

    student: nn.Module
    teacher: Observation
    batch: Batch

    @cached_property
    def observation(self) -> Observation:
        """The student's one forward pass, made when first asked for and shared by all proxies."""
        return observe(self.student, *self.batch)
