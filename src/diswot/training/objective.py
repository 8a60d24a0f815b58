"""The loss of a student: cross-entropy or a detector's losses, and distances to its teacher."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from diswot.data.dataset import UNLABELLED
from diswot.knowledge.losses import Losses, outputs
from diswot.models.resized import entered
from diswot.observation.boxes import is_boxes
from diswot.observation.detectors import run_detector
from diswot.observation.observe import Observation, observe, record
from diswot.observation.rows import (
    IGNORED,
    PixelRows,
    is_dense,
    logits_of,
    mean_cross_entropy,
    resized_logits,
)
from diswot.tasks.registry import task_of
from diswot.training.batches import Part
from diswot.training.distributed import Processes
from diswot.training.trainable import Distillation

LossParts = dict[str, Tensor]

_SMOOTH = 1.0  # pixels, added to both sides of the fraction of the Dice loss


@dataclass
class Objective:
    """The loss of a part of a batch, by named parts.

    A part takes one of three ways: a detector has losses of its own; maps are compared if a
    distance needs them; else outputs are, or the labels alone teach.

    The networks of `given` are called as they are, perhaps compiled or parallel over processes. The
    logits of its teacher for each training image, N x K, may be `kept`. Where some images are
    `unlabelled`, they have no cross-entropy, and the class that the teacher gives them counts as
    their label in all else.
    """

    given: Distillation
    losses: Losses | None
    processes: Processes
    bf16: bool = False
    kept: Tensor | None = None

    def __post_init__(self) -> None:
        self.recipe, self.unlabelled = self.given.recipe, self.given.data.has_unlabelled

    def __call__(self, part: Part, ramp: float = 1.0) -> tuple[LossParts, Tensor | None]:
        """Return the weighted losses, and which rows of the whole batch are classified right.

        A detector's losses have names of their own, and none of its rows is said to be right. A
        dense network's part without rows, whose pixels are all ignored, has losses of 0.

        With mixed images, the cross-entropy takes the mixed labels. The knowledge distances and
        the accuracy take the label with the larger share. `ramp` is a factor of the distances.
        """
        if is_boxes(part.labels):
            return self._of_boxes(part, ramp), None
        way = self._of_maps if self._compares_maps(part.labels) else self._of_outputs
        distances, logits, labels = way(part)
        given = part.labels if part.targets is None else part.targets
        loss = self._cross_entropy(logits, self.processes.gather(given))
        own = {"cross_entropy": self.recipe.cross_entropy * loss}
        if self.recipe.dice:
            own["dice"] = self.recipe.dice * dice_loss(logits, labels)
        ramped = {name: ramp * distance for name, distance in distances.items()}
        correct = _correct(logits.detach(), labels)
        return {**own, **ramped}, correct if len(correct) else None

    def _of_boxes(self, part: Part, ramp: float) -> LossParts:
        """Return the weighted losses of a detector: means over the shares of all processes.

        Distances compare the share of each process, as the rows of two shares differ in number.
        """
        student, images, boxes = self.given.student, part.images, part.labels
        with self._autocast(images):
            if self.losses is None:
                own, distances = run_detector(student, images, boxes), {}
            else:
                taught = self._watched_teacher(self.losses, images, boxes)
                seen = record(student, images, boxes)
                own, distances = dict(seen.losses or {}), self.losses(taught, seen)
        parts = {name: self.recipe.cross_entropy * value for name, value in own.items()}
        parts |= {name: ramp * value for name, value in distances.items()}
        return {name: self.processes.mean(value) for name, value in parts.items()}

    def _autocast(self, images: Tensor) -> torch.autocast:
        return torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16)

    def _cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy of the rows that have a label; 0 if none has."""
        if self.unlabelled and not is_dense(targets):
            known = targets != UNLABELLED
            if not known.any():
                return logits.sum() * 0
            logits, targets = logits[known], targets[known]
        return mean_cross_entropy(logits, targets, self.recipe.label_smoothing)

    def _compares_maps(self, labels: Tensor) -> bool:
        """Whether a distance looks at maps, and each process has a row, which these need."""
        if self.losses is None or self.losses.outputs_alone:
            return False
        return not is_dense(labels) or not self.processes.sum((labels == IGNORED).all().float())

    def _of_outputs(self, part: Part) -> tuple[LossParts, Tensor, Tensor]:
        """Return the distances, and the logits and labels of the whole batch.

        The distances of a dense network are those of its rows; without any they are 0.
        """
        with self._autocast(part.images):
            logits = logits_of(self.given.student(part.images))
            taught = self._taught(part)
        filled = part.labels if taught is None else self._filled(part.labels, taught)
        whole, labels = self.processes.gather(logits.float()), self.processes.gather(filled)
        if self.losses is None or taught is None:
            return {}, whole, labels
        empty = is_dense(labels) and not (labels != IGNORED).any()
        if empty or not self.losses.outputs_alone:
            return dict.fromkeys(self.losses.weights, 0 * whole.sum()), whole, labels
        pair, targets = (self.processes.gather(taught.float()), whole), labels
        if is_dense(labels):
            rows = PixelRows(labels)
            pair, targets = (rows.read(pair[0]), rows.read(pair[1])), rows.classes
        return self.losses(*(outputs(each, targets) for each in pair)), whole, labels

    @torch.no_grad()
    def _taught(self, part: Part) -> Tensor | None:
        """Return the teacher's logits for the images of this process."""
        if self.kept is not None:
            return self.kept[part.indices.to(self.kept.device)]
        if self.losses is None or self.given.teacher is None:
            return None
        return logits_of(self.given.teacher(part.images))

    def _of_maps(self, part: Part) -> tuple[LossParts, Tensor, Tensor]:
        """Return the distances, and the logits and labels of the whole batch.

        The distances of a dense network are means over the shares of all processes, as the rows of
        two shares differ in number.
        """
        assert self.losses is not None
        with self._autocast(part.images):
            taught = self._watched_teacher(self.losses, part.images, part.labels)
            labels = part.labels if is_dense(part.labels) else taught.targets
            seen = record(self.given.student, part.images, labels, cam=self.losses.needs_cam)
        whole = self.processes.gather(labels)
        if seen.positions is not None:
            distances = self.losses(taught, seen)
            means = {name: self.processes.mean(value) for name, value in distances.items()}
            return means, self.processes.gather(seen.positions).float(), whole
        taught, seen = self.processes.gathered(taught), self.processes.gathered(seen)
        return self.losses(taught, seen), seen.logits.float(), whole

    @torch.no_grad()
    def _watched_teacher(self, losses: Losses, images: Tensor, labels: Tensor) -> Observation:
        """Return what the teacher shows; of images its targets are a label for each.

        Only distances that depend on the labels need a second pass, with the labels of the first.
        """
        assert self.given.teacher is not None
        model, images = entered(self.given.teacher, images)
        if labels.ndim > 1:  # of pixels, or boxes
            return record(model, images, labels, cam=losses.needs_cam)
        # Of a teacher with other classes no distance of maps looks at the labels.
        first = labels.clamp_min(0) if losses.shared is None else torch.zeros_like(labels)
        taught = record(model, images, first, cam=losses.needs_cam)
        filled = self._filled(labels, taught.logits).clamp_min(0)
        if self.unlabelled and losses.needs_labels and losses.shared is None:
            return record(model, images, filled, cam=losses.needs_cam)
        return replace(taught, targets=filled)

    def _filled(self, labels: Tensor, logits: Tensor) -> Tensor:
        """Return the labels, or the teacher's classes where there is no label."""
        if is_dense(labels) or not self.unlabelled:
            return labels
        shared = None if self.losses is None else self.losses.shared
        classes = logits.argmax(1) if shared is None else shared.answers(logits)
        return torch.where(labels == UNLABELLED, classes.to(labels.device), labels)


def _correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Return whether each row is classified right: an image, or a pixel that has a label."""
    if not is_dense(labels):
        return logits.argmax(1) == labels
    height, width = labels.shape[1:]
    return (resized_logits(logits, (height, width)).argmax(1) == labels)[labels != IGNORED]


def create_losses(given: Distillation, device: torch.device) -> Losses | None:
    """Create the knowledge distances, with what they learn, for the shapes of both networks.

    Raises:
        UserError: A distance does not fit the networks.
    """
    data, recipe = given.data, given.recipe
    if given.teacher is None or not recipe.losses:
        return None
    labels = task_of(data).example(data).to(device)
    if recipe.outputs_alone and not is_boxes(labels):
        zeros = torch.zeros(2, len(data.classes), device=device)
        taught = seen = outputs(zeros, torch.zeros(2, dtype=torch.int64, device=device))
    else:
        images = torch.zeros(2, *data.image_shape, device=device)
        pairs = (entered(model, images) for model in (given.teacher, given.student))
        taught, seen = (observe(*pair, labels, cam=True) for pair in pairs)
    return Losses(recipe.losses, taught, seen, recipe.temperature, given.classes).to(device)


def dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return 1 - (2 sum p y + 1) / (sum p + sum y + 1), the mean over the classes that occur.

    p are the softmax probabilities of a class, y is 1 where it is the target, and the sums run over
    all pixels of the batch that have a target. Milletari et al., "V-Net", 3DV 2016.

    Args:
        logits: B x K x h x w.
        targets: Class indices, B x H x W; `IGNORED` for a pixel without one.

    Returns:
        A scalar; 0 if no pixel has a target.
    """
    height, width = targets.shape[1:]
    known = targets != IGNORED
    shares = resized_logits(logits, (height, width)).movedim(1, 3)[known].float().softmax(1)
    wanted = one_hot(targets[known].long(), logits.shape[1]).to(shares.dtype)
    hits, counts = (shares * wanted).sum(0), wanted.sum(0)
    losses = 1 - (2 * hits + _SMOOTH) / (shares.sum(0) + counts + _SMOOTH)
    occurring = counts > 0
    return torch.where(occurring, losses, 0).sum() / occurring.sum().clamp_min(1)
