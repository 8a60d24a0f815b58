"""What a training begins with: both networks, the images, the recipe and the student's weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from diswot.cli import inputs
from diswot.errors import UserError
from diswot.storage.run_files import FRESH, FROM_TEACHER

if TYPE_CHECKING:
    from torch import nn

    from diswot.cli.subject import Subject
    from diswot.cli.teachers import MatchedTeacher
    from diswot.cli.training import ChosenRecipe
    from diswot.data.dataset import Dataset
    from diswot.models.inheritance import Inheritance
    from diswot.training.recipe import Recipe

ENOUGH = 0.5  # share of inherited parameters above which a student starts from its teacher unasked
INHERITED = "inherited"  # name of the note in a checkpoint


class ChooseRecipe(Protocol):
    """A function that chooses the recipe, for a student or before there is one."""

    def __call__(
        self,
        student: nn.Module | None = None,
        *,
        fresh: bool = False,
        record: Mapping[str, Any] | None = None,
    ) -> ChosenRecipe:
        """Choose the recipe."""


@dataclass(frozen=True)
class Start:
    """Where the weights are from that a training begins with.

    Attributes:
        place: `teacher`, `fresh`, or the path of a file of weights.
        inherited: Share of the parameters that the student has from its teacher, and how their
            channels were chosen; empty unless `place` is `teacher`.
        reason: Why the weights are fresh; empty where there is nothing to say.
    """

    place: str
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


@dataclass(frozen=True)
class Beginning:
    """What a training begins with.

    Attributes:
        teacher: Trained network and its classes; None without one.
        student: Network with the weights that its training begins with.
        named: The student's parameters or name.
        images: Training and test images.
        chosen: Recipe of the training.
        start: Where the student's weights are from.
    """

    teacher: MatchedTeacher | None
    student: nn.Module
    named: Any
    images: Dataset
    chosen: ChosenRecipe
    start: Start

    @property
    def model(self) -> nn.Module | None:
        """The teacher's network; None without a teacher."""
        return None if self.teacher is None else self.teacher.model

    @property
    def classes(self) -> tuple[int, ...] | None:
        """Class of the data of each of the teacher's outputs; None if they are the data's."""
        return None if self.teacher is None else self.teacher.classes

    @property
    def lines(self) -> list[str]:
        """What a user may not expect, a line each."""
        taught = () if self.teacher is None else self.teacher.lines
        return [line for line in (*taught, self.start.line, self.chosen.line) if line]

    @property
    def recipe(self) -> Recipe:
        """Settings of the training."""
        return self.chosen.settings


def prepare(
    chosen: Subject, choose: ChooseRecipe, record: Mapping[str, Any] | None = None
) -> Beginning:
    """Build both networks and load the images; give the student its first weights.

    Args:
        chosen: What is trained on what.
        choose: Chooses the recipe, given the student and where its weights are from.
        record: What the checkpoint of a resumed training records. Its weights are loaded over
            those of the student, which are random here. Default: none, a new training.

    Raises:
        UserError: A network, the images or the start is impossible.
    """
    from diswot.models.initialization import fresh

    images = chosen.load_images()
    pretrained = chosen.alone and chosen.pretrained
    build, named = inputs.named_student(chosen.student, chosen.space, images, pretrained=pretrained)
    teacher = chosen.load_teacher(images, record)
    student = fresh(build, "default", choose().settings.seed)
    if record:
        start = _resumed(chosen.start, record)
    else:
        recipe = choose(student).settings
        start = begin(chosen.start, teacher, student, images, recipe)
    random = start.place == FRESH and not pretrained
    final = choose(student, fresh=random, record=record)
    return Beginning(teacher, student, named, images, final, start)


def _resumed(choice: str | None, record: Mapping[str, Any]) -> Start:
    """Return the start of a resumed training: by default the recorded one."""
    before = record.get("start", FRESH)  # version 0.1.0 recorded none
    place = before if choice is None else _place(choice)
    return Start(place, record.get(INHERITED, {}) if place == before else {})


def _place(choice: str) -> str:
    return choice if choice in (FROM_TEACHER, FRESH) else str(Path(choice).resolve())


def begin(
    choice: str | None,
    teacher: MatchedTeacher | None,
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

    if choice not in (None, FROM_TEACHER, FRESH):
        load_weights(student, choice)
        return Start(_place(choice))
    if choice == FROM_TEACHER and teacher is None:
        raise UserError("--start teacher needs a teacher, and --teacher none is without one")
    if choice == FRESH or teacher is None:
        return Start(FRESH)
    if choice == FROM_TEACHER:
        return _from_teacher(_inherit(teacher, student, images, recipe))
    return _unasked(teacher, student, images, recipe)


def _from_teacher(found: Inheritance) -> Start:
    return Start(FROM_TEACHER, {"share": round(found.share, 4), "channels": found.channels})


def _unasked(teacher: MatchedTeacher, student: nn.Module, images: Dataset, recipe: Recipe) -> Start:
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
    return _from_teacher(found)


def _inherit(
    teacher: MatchedTeacher, student: nn.Module, images: Dataset, recipe: Recipe
) -> Inheritance:
    from diswot.models.inheritance import inherit
    from diswot.models.resized import plain
    from diswot.training.batches import augmented_batches

    own = None
    if teacher.classes is not None:
        own = ["" if place < 0 else images.classes[place] for place in teacher.classes]
    return inherit(
        plain(teacher.model),
        student,
        augmented_batches(images, recipe),
        teacher_classes=own,
        student_classes=None if own is None else images.classes,
    )
