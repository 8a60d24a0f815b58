"""What a training begins with: both networks, the images, the recipe and the student's weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from diswot.cli import inputs
from diswot.storage.run_files import FRESH

if TYPE_CHECKING:
    from torch import nn

    from diswot.cli.subject import Subject
    from diswot.cli.teachers import MatchedTeacher
    from diswot.cli.training import ChosenRecipe
    from diswot.data.dataset import Dataset
    from diswot.training.recipe import Recipe
    from diswot.training.starts import Start


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
    from diswot.training.starts import begin, resumed

    images = chosen.load_images()
    pretrained = chosen.alone and chosen.pretrained
    build, named = inputs.named_student(chosen.student, chosen.space, images, pretrained=pretrained)
    teacher = chosen.load_teacher(images, record)
    student = fresh(build, "default", choose().settings.seed)
    if record:
        start = resumed(chosen.start, record)
    else:
        recipe = choose(student).settings
        taught = (None, None) if teacher is None else (teacher.model, teacher.classes)
        start = begin(chosen.start, taught[0], student, images, recipe, taught[1])
    random = start.place == FRESH and not pretrained
    final = choose(student, fresh=random, record=record)
    return Beginning(teacher, student, named, images, final, start)
