"""The inputs of a proxy: the student, the batch, and the observations of teacher and student.

Letters: B images, H x W pixels.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import torch
from torch import Generator, Tensor, nn

from diswot.data.dataset import Batch
from diswot.errors import UserError
from diswot.observation.boxes import is_boxes
from diswot.observation.detectors import ImagesAlone
from diswot.observation.observe import Observation, observe
from diswot.proxies import passes
from diswot.proxies.first_block import first_block_roughness
from diswot.proxies.recorders import Recorder

R = TypeVar("R", bound=Recorder)


@dataclass(frozen=True)
class Candidate:
    """A student about to be scored.

    Each property is computed when a proxy first asks for it, and shared by all proxies. No proxy's
    score depends on which other proxies are computed, or in which order.

    Attributes:
        student: Network with the weights with which it is scored.
        teacher: Observation of the teacher on the batch; None if no proxy compares it.
        batch: Normalised images and labels.
        seed: Seed of the proxies that draw random numbers.
        recorders: What is recorded in the one forward pass, beside the observation.
        cam: Whether the observation must have `cam_weights`.
        teacher_roughness: Roughness of the teacher's first block on the batch, in nats; None if no
            proxy compares it.
    """

    student: nn.Module
    teacher: Observation | None
    batch: Batch
    seed: int = 0
    recorders: tuple[type[Recorder], ...] = ()
    cam: bool = False
    teacher_roughness: float | None = None

    @property
    def observation(self) -> Observation:
        """The observation of the student, from one forward pass."""
        return self._pass[0]

    @property
    def observations(self) -> tuple[Observation, Observation]:
        """The observations of the teacher and of the student.

        Raises:
            UserError: The teacher was not observed.
        """
        if self.teacher is None:
            raise UserError("needs an observation of a teacher")
        return self.teacher, self.observation

    def recorded(self, kind: type[R]) -> R:
        """Return a recorder after the forward pass; if it was not in the pass, run another."""
        if kind not in self.recorders:
            return replace(self, recorders=(kind,)).recorded(kind)
        recorder = self._pass[1][kind]
        assert isinstance(recorder, kind)
        return recorder

    @cached_property
    def _pass(self) -> tuple[Observation, dict[type[Recorder], Recorder]]:
        recorders = {kind: kind(self.student, self.images) for kind in self.recorders}
        with ExitStack() as stack:
            for recorder in recorders.values():
                stack.enter_context(recorder)
            return observe(self.student, *self.batch, cam=self.cam), recorders

    @cached_property
    def _alone(self) -> tuple[nn.Module, Tensor]:
        return images_alone(self.student, self.batch)

    @property
    def network(self) -> nn.Module:
        """The student as a function of images alone: itself, unless it is a detector."""
        return self._alone[0]

    @property
    def images(self) -> Tensor:
        """The images as `network` takes them, B x 3 x H x W: a detector may resize and pad them."""
        return self._alone[1]

    @cached_property
    def roughness(self) -> tuple[float, float]:
        """The roughness of the first blocks of the teacher and of the student, in nats.

        Both have the same draws of weights.

        Raises:
            UserError: The teacher's was not measured, or no block of the student gives a map.
        """
        if self.teacher_roughness is None:
            raise UserError("needs the first block of the teacher: give the teacher itself")
        found = first_block_roughness(self.network, self.images, self.seed)
        if found is None:
            raise UserError("no block of the student gives a map of the images")
        return self.teacher_roughness, found

    @cached_property
    def cut_off(self) -> bool:
        """Whether no path leads from the images to the logits.

        Then both the logits and the inputs of the classifier are the same for all images. If only
        the logits are, the weights of the classifier are zero, as ViTs initialise them, and can
        learn.
        """
        seen = self.observation
        rows = seen.logits, seen.head_input
        return all(each.numel() and _constant(each) for each in rows)

    @cached_property
    def weight_gradients(self) -> dict[str, Tensor]:
        """The gradient of the loss in each weight, by name; see `losses.mean_loss`."""
        return passes.weight_gradients(self.student, self.batch)

    @cached_property
    def input_jacobian(self) -> Tensor:
        """The gradient of the sum of all logits in each image, B x 3HW."""
        return passes.input_jacobian(self.network, self.images)

    def generator(self) -> Generator:
        """Return a random generator from the seed alone, the same for each proxy."""
        return torch.Generator().manual_seed(self.seed)


def images_alone(model: nn.Module, batch: Batch) -> tuple[nn.Module, Tensor]:
    """Return a network as a function of images alone, and the images as it takes them.

    The targets of the batch say whether the network is a detector.
    """
    if not is_boxes(batch.labels):
        return model, batch.images
    network = ImagesAlone(model)
    return network, network.enter(batch.images)


def _constant(rows: Tensor) -> bool:
    return bool(rows.isfinite().all() and (rows == rows[0]).all())
