"""What a batch of images costs a student: cross-entropy, and distances to its teacher."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from diswot.data.dataset import Dataset
from diswot.data.loader import Source
from diswot.errors import UserError
from diswot.knowledge.losses import Losses, outputs
from diswot.observation.observe import observe, record
from diswot.training.distributed import Processes
from diswot.training.evaluation import predict
from diswot.training.recipe import Recipe

Parts = dict[str, Tensor]
Network = Callable[[Tensor], Tensor]


@dataclass
class Objective:
    """The named parts of the loss.

    Attributes:
        student: Trained.
        teacher: Held still; None without one.
        losses: The distances with what they learn; None where nothing is learned from a teacher.
        recipe: Weights and settings.
        processes: That share each batch.
        bf16: Whether networks compute in bf16.
        kept: The teacher's logits for each training image, N x K, once they are there.
    """

    student: nn.Module
    teacher: nn.Module | None
    losses: Losses | None
    recipe: Recipe
    processes: Processes
    bf16: bool
    kept: Tensor | None = None
    pass_student: Network = field(init=False)
    pass_teacher: Network | None = field(init=False)

    def __post_init__(self) -> None:
        compiled = torch.compile if self.recipe.compile else lambda model: model
        self.pass_student = compiled(self.student)
        self.pass_teacher = None if self.teacher is None else compiled(self.teacher)

    def keep(self, source: Source, data: Dataset, size: int) -> None:
        """Run the teacher on all training images, which are never altered, once."""
        if self.recipe.cache and self.losses is not None and self.pass_teacher is not None:
            parts = torch.split(torch.arange(size), self.recipe.batch_size)
            logits = predict(self.pass_teacher, data, source.batches(parts), self.bf16)
            self.kept = torch.cat([each.float() for each, _ in logits])

    def __call__(self, images: Tensor, labels: Tensor, indices: Tensor) -> tuple[Parts, Tensor]:
        """The weighted parts, and whether each image of the whole batch was told right.

        Args:
            images: This process's share, normalised, B x 3 x S x S.
            labels: Theirs, B.
            indices: Which training images they are, B.
        """
        seen, logits, labels = self._distances(images, labels, indices)
        weight, smoothing = self.recipe.cross_entropy, self.recipe.label_smoothing
        told = weight * cross_entropy(logits, labels, label_smoothing=smoothing)
        return {"cross_entropy": told, **seen}, logits.argmax(1) == labels

    def _distances(
        self, images: Tensor, labels: Tensor, indices: Tensor
    ) -> tuple[Parts, Tensor, Tensor]:
        """The distances, and the logits and labels of the whole batch."""
        if self.losses is not None and not self.losses.outputs_alone:
            return self._watched(images, labels)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
            logits = self.pass_student(images)
            taught = self._taught(images, indices)
        if not isinstance(logits, Tensor):
            raise UserError(f"the student gives a {type(logits).__name__} in training mode")
        whole, labels = self.processes.gather(logits.float()), self.processes.gather(labels)
        if self.losses is None or taught is None:
            return {}, whole, labels
        teacher = outputs(self.processes.gather(taught.float()), labels)
        return self.losses(teacher, outputs(whole, labels)), whole, labels

    @torch.no_grad()
    def _taught(self, images: Tensor, indices: Tensor) -> Tensor | None:
        if self.kept is not None:
            return self.kept[indices.to(self.kept.device)]
        if self.losses is None or self.pass_teacher is None:
            return None
        return self.pass_teacher(images)

    def _watched(self, images: Tensor, labels: Tensor) -> tuple[Parts, Tensor, Tensor]:
        """Both networks with their maps."""
        assert self.losses is not None and self.teacher is not None
        cam = self.losses.needs_cam
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
            with torch.no_grad():
                taught = record(self.teacher, images, labels, cam=cam)
            seen = record(self.student, images, labels, cam=cam)
        taught, seen = self.processes.gathered(taught), self.processes.gathered(seen)
        return self.losses(taught, seen), seen.logits.float(), seen.targets


def made_losses(
    student: nn.Module,
    teacher: nn.Module | None,
    data: Dataset,
    recipe: Recipe,
    device: torch.device,
) -> Losses | None:
    """The knowledge distances, with what they learn, made for the shapes of both networks."""
    if teacher is None or not recipe.losses:
        return None
    labels = torch.zeros(2, dtype=torch.int64, device=device)
    if recipe.outputs_alone:
        nothing = outputs(torch.zeros(2, len(data.classes), device=device), labels)
        return Losses(recipe.losses, nothing, nothing, recipe.temperature)
    images = torch.zeros(2, *data.image_shape, device=device)
    taught, seen = (observe(model, images, labels, cam=True) for model in (teacher, student))
    return Losses(recipe.losses, taught, seen, recipe.temperature).to(device)
