"""What a proxy may look at."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import torch
from torch import Generator, Tensor, nn

from diswot.data.dataset import Batch
from diswot.observation.observe import Observation, observe
from diswot.proxies import passes
from diswot.proxies.early_blocks import Opening, opening
from diswot.proxies.recorders import Watch

W = TypeVar("W", bound=Watch)


@dataclass(frozen=True)
class Candidate:
    """A student about to be scored.

    Whatever a proxy looks at here is computed when first asked for and shared by all proxies; no
    proxy's score depends on which others are asked for, or in which order.

    Attributes:
        student: With the weights it is scored with.
        teacher: What was observed of the teacher on the batch.
        batch: Normalised images and labels.
        seed: Of the random numbers of proxies that draw some.
        watches: What is caught during the one forward pass, beside the observation.
        cam: Whether the observation must hold `cam_weights`.
        teacher_opening: What the teacher's first blocks show of the batch, if known.
    """

    student: nn.Module
    teacher: Observation
    batch: Batch
    seed: int = 0
    watches: tuple[type[Watch], ...] = ()
    cam: bool = False
    teacher_opening: Opening | None = None

    @property
    def observation(self) -> Observation:
        """The student's one forward pass."""
        return self._pass[0]

    def watched(self, kind: type[W]) -> W:
        """What was caught during that pass; if it was not watched for, during another one."""
        if kind not in self.watches:
            return replace(self, watches=(kind,)).watched(kind)
        watch = self._pass[1][kind]
        assert isinstance(watch, kind)
        return watch

    @cached_property
    def _pass(self) -> tuple[Observation, dict[type[Watch], Watch]]:
        watches = {kind: kind(self.student, self.batch.images) for kind in self.watches}
        with ExitStack() as stack:
            for watch in watches.values():
                stack.enter_context(watch)
            return observe(self.student, *self.batch, cam=self.cam), watches

    @cached_property
    def opening(self) -> Opening | None:
        """What the student's first blocks show of the batch, with the weights the teacher's had."""
        return opening(self.student, self.batch.images, self.seed)

    @cached_property
    def cut_off(self) -> bool:
        """Whether no path leads from the images to the logits.

        Both the logits and what enters the classifier are the same for all images. Where only the
        logits are, the classifier is zero, as ViTs initialise it, and can learn.
        """
        seen = self.observation
        return _constant(seen.logits) and _constant(seen.pooled)

    @cached_property
    def weight_gradients(self) -> dict[str, Tensor]:
        """Gradient of the mean cross-entropy in each weight, by name."""
        return passes.weight_gradients(self.student, self.batch)

    @cached_property
    def input_jacobian(self) -> Tensor:
        """Gradient of the sum of all logits in each image, B x 3HW."""
        return passes.input_jacobian(self.student, self.batch.images)

    def generator(self) -> Generator:
        """Random numbers from the seed alone, the same for each proxy that asks."""
        return torch.Generator().manual_seed(self.seed)


def _constant(rows: Tensor) -> bool:
    return bool(rows.isfinite().all() and (rows == rows[0]).all())
