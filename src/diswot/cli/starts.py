"""What a training begins with: both networks, the images, the recipe and the student's weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from diswot.cli import inputs
from diswot.cli import training as trainings
from diswot.storage.run_files import FRESH

if TYPE_CHECKING:
    from torch import nn

    from diswot.cli.subject import Subject
    from diswot.cli.training_options import TrainingOptions
    from diswot.data.dataset import Dataset
    from diswot.training.recipe import Recipe
    from diswot.training.starts import Start


@dataclass(frozen=True)
class Beginning:
    """What a training begins with.

    Attributes:
        teacher: Trained network; None without one.
        classes: Class of the data of each of the teacher's outputs; None if they are the data's.
        student: Network with the weights that its training begins with.
        named: The student's parameters or name.
        images: Training and test images.
        recipe: Settings of the training.
        start: Where the student's weights are from.
        lines: What a user may not expect.
    """

    teacher: nn.Module | None
    classes: tuple[int, ...] | None
    student: nn.Module
    named: Any
    images: Dataset
    recipe: Recipe
    start: Start
    lines: list[str]


def recipe_of(
    training: TrainingOptions,
    chosen: Subject,
    student: nn.Module | None = None,
    *,
    fresh: bool = False,
    record: Mapping[str, Any] | None = None,
) -> trainings.ChosenRecipe:
    """Return the recipe, by default that of the student; digits are mirrored only on request."""
    settings = asdict(training)
    name = settings.pop("recipe")
    if chosen.images.name == "digits" and training.flip is None and not record:
        settings["flip"] = False
    alone = chosen.alone
    return trainings.recipe(
        name, settings, alone=alone, student=student, fresh=fresh, record=record
    )


def prepare(chosen: Subject, training: TrainingOptions, record: Mapping[str, Any]) -> Beginning:
    """Build both networks and load the images; give the student its first weights.

    A resumed training has the record of its checkpoint, whose weights are loaded over those of the
    student, which are random here.
    """
    from diswot.models.initialization import fresh
    from diswot.training.starts import begin, resumed

    images = chosen.load_images()
    pretrained = chosen.alone and chosen.teacher.pretrained
    build, named = inputs.named_student(chosen.student, chosen.space, images, pretrained=pretrained)
    taught = chosen.load_teacher(images, record)
    teacher, classes, lines = taught or (None, None, ())
    student = fresh(build, "default", recipe_of(training, chosen).settings.seed)
    if record:
        start = resumed(chosen.start, record)
    else:
        recipe = recipe_of(training, chosen, student).settings
        start = begin(chosen.start, teacher, student, images, recipe, classes)
    random = start.place == FRESH and not pretrained
    final = recipe_of(training, chosen, student, fresh=random, record=record)
    said = [line for line in (*lines, start.line, final.line) if line]
    return Beginning(teacher, classes, student, named, images, final.settings, start, said)
