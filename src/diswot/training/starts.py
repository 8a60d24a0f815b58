"""The weights that a student begins with: those of its teacher, random ones, or those of a file."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from diswot.errors import UserError
from diswot.models.inheritance import Inheritance, inherit
from diswot.models.resized import without_resizing
from diswot.models.weights import load_weights
from diswot.storage.run_files import FRESH, FROM_TEACHER
from diswot.training.batches import augmented_batches
from diswot.training.trainable import Distillation

ENOUGH = 0.5  # share of inherited parameters above which a student starts from its teacher unasked
INHERITED = "inherited"  # name of the note in a checkpoint


@dataclass(frozen=True)
class Start:
    """Origin of the weights that a training begins with.

    Attributes:
        place: `teacher`, `fresh`, or the path of a file of weights.
        inherited: Share of the parameters that the student has from its teacher, and how their
            channels were chosen; empty unless `place` is `teacher`.
        reason: Why the weights are fresh; empty where there is nothing to say.
    """

    place: str = FRESH
    inherited: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""

    @property
    def line(self) -> str:
        """A line that says where the weights are from; empty for a plain fresh start."""
        if self.inherited:
            return (
                f"the student starts from its teacher: {self.inherited['share']:.0%} of its "
                f"parameters, channels chosen by {self.inherited['channels']} "
                "(--start fresh draws all at random)"
            )
        if self.place == FRESH:
            return self.reason and f"the student starts with random weights: {self.reason}"
        return f"the student starts from {self.place}"

    @property
    def notes(self) -> dict[str, Any]:
        """What the checkpoints keep, for the result of a resumed training."""
        return {INHERITED: dict(self.inherited)}

    def facts(self) -> dict[str, Any]:
        """Return what the run folder records."""
        return {"from": self.place, **self.inherited}


def resumed(choice: str | None, record: Mapping[str, Any]) -> Start:
    """Return the start of a resumed training: by default the recorded one."""
    before = record.get("start", FRESH)  # version 0.1.0 recorded none
    place = before if choice is None else _place(choice)
    return Start(place, record.get(INHERITED, {}) if place == before else {})


def _place(choice: str) -> str:
    return choice if choice in (FROM_TEACHER, FRESH) else str(Path(choice).resolve())


def begin(choice: str | None, given: Distillation) -> Start:
    """Give a freshly initialised student the weights that its training begins with.

    Batch-norm statistics of inherited weights are estimated on training images, augmented as the
    recipe says.

    Args:
        choice: `teacher`, `fresh`, or a file of weights. None takes the teacher's if more than half
            of the parameters fit.
        given: The student, which is changed, and what it learns from.

    Raises:
        UserError: There is no teacher to start from, nothing fits, or the file does not fit.
    """
    if choice not in (None, FROM_TEACHER, FRESH):
        load_weights(given.student, choice)
        return Start(_place(choice))
    if choice == FROM_TEACHER and given.teacher is None:
        raise UserError("--start teacher needs a teacher, and --teacher none is without one")
    if choice == FRESH or given.teacher is None:
        return Start()
    if choice == FROM_TEACHER:
        return _from_teacher(_inherit(given.teacher, given))
    trial = copy.deepcopy(given.student)
    try:
        found = _inherit(given.teacher, replace(given, student=trial))
    except UserError:
        return Start(FRESH, reason="nothing of its teacher fits")
    if found.share <= ENOUGH:
        reason = f"only {found.share:.0%} fit its teacher (--start teacher takes these)"
        return Start(FRESH, reason=reason)
    given.student.load_state_dict(trial.state_dict())
    return _from_teacher(found)


def _from_teacher(found: Inheritance) -> Start:
    return Start(FROM_TEACHER, {"share": round(found.share, 4), "channels": found.channels})


def _inherit(teacher: nn.Module, given: Distillation) -> Inheritance:
    own, names = None, given.data.classes
    if given.classes is not None:
        own = ["" if place < 0 else names[place] for place in given.classes]
    return inherit(
        without_resizing(teacher),
        given.student,
        augmented_batches(given.data, given.recipe),
        teacher_classes=own,
        student_classes=None if own is None else names,
    )
