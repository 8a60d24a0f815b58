"""`--start`: where the weights are from that a training begins with."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diswot.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from diswot.data.dataset import Dataset
    from diswot.models.inheritance import Inheritance
    from diswot.training.recipe import Recipe

TEACHER, FRESH = "teacher", "fresh"
ENOUGH = 0.5  # share of inherited parameters above which a student starts from its teacher unasked


@dataclass(frozen=True)
class Start:
    """Where the weights are from that a training begins with.

    Attributes:
        place: `teacher`, `fresh`, or the path of a file of weights.
        inherited: What the student has from its teacher; None unless `place` is `teacher`.
        reason: Why the weights are fresh; empty where there is nothing to say.
    """

    place: str
    inherited: Inheritance | None = None
    reason: str = ""

    @property
    def line(self) -> str:
        """A line that says where the weights are from; empty for a plain fresh start."""
        if self.inherited is not None:
            share, channels = self.inherited.share, self.inherited.channels
            return (
                f"the student starts from its teacher: {share:.0%} of its parameters, channels "
                f"chosen by {channels} (--start fresh draws all at random)"
            )
        if self.place == FRESH:
            return self.reason and f"the student starts with random weights: {self.reason}"
        return f"the student starts from {self.place}"

    def facts(self) -> dict[str, Any]:
        """Return what the run folder records."""
        if self.inherited is None:
            return {"from": self.place}
        return {
            "from": self.place,
            "share": round(self.inherited.share, 4),
            "channels": self.inherited.channels,
        }


def begin(
    choice: str | None,
    teacher: nn.Module | None,
    student: nn.Module,
    images: Dataset,
    recipe: Recipe,
) -> Start:
    """Give a student the weights that its training begins with.

    Args:
        choice: `teacher`, `fresh`, or a file of weights. None takes the teacher's if more than half
            of the parameters fit.
        teacher: Trained network; None without one.
        student: Freshly initialised network, which is changed.
        images: Training images, on which batch-norm statistics are estimated.
        recipe: Batch size and augmentation of these images.

    Raises:
        UserError: There is no teacher to start from, nothing fits, or the file does not fit.
    """
    from diswot.models.weights import load_weights

    if choice not in (None, TEACHER, FRESH):
        load_weights(student, choice)
        return Start(str(Path(choice).resolve()))
    if choice == TEACHER and teacher is None:
        raise UserError("--start teacher needs a teacher, and --teacher none is without one")
    if choice == FRESH or teacher is None:
        return Start(FRESH)
    if choice == TEACHER:
        return Start(TEACHER, _inherit(teacher, student, images, recipe))
    return _unasked(teacher, student, images, recipe)


def _unasked(teacher: nn.Module, student: nn.Module, images: Dataset, recipe: Recipe) -> Start:
    """Start from the teacher if more than half of the student's parameters fit."""
    trial = copy.deepcopy(student)
    try:
        found = _inherit(teacher, trial, images, recipe)
    except UserError:
        return Start(FRESH, reason="nothing of its teacher fits")
    if found.share <= ENOUGH:
        reason = f"only {found.share:.0%} fit its teacher (--start teacher takes these)"
        return Start(FRESH, reason=reason)
    student.load_state_dict(trial.state_dict())
    return Start(TEACHER, found)


def _inherit(
    teacher: nn.Module, student: nn.Module, images: Dataset, recipe: Recipe
) -> Inheritance:
    from diswot.models.inheritance import inherit
    from diswot.training.batches import augmented_batches

    return inherit(teacher, student, augmented_batches(images, recipe))
