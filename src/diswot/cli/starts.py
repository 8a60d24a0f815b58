"""What a training begins with: both networks, the images, the recipe and the student's weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from diswot.cli import inputs
from diswot.cli import training as trainings
from diswot.storage.run_files import FRESH

if TYPE_CHECKING:
    from diswot.cli.subject import Subject
    from diswot.cli.training_options import TrainingOptions
    from diswot.training.starts import Start
    from diswot.training.trainable import Distillation


def prepare(
    chosen: Subject, training: TrainingOptions, record: Mapping[str, Any]
) -> tuple[Distillation, Start, list[str]]:
    """Build both networks and load the images; give the student its first weights.

    A resumed training has the record of its checkpoint, whose weights are loaded over those of the
    student, which are random here.

    Returns:
        The student and what it learns from; where its weights are from; and lines on what a user
        may not expect, none if the training is resumed.
    """
    from diswot.models.initialization import fresh
    from diswot.training.starts import begin, resumed
    from diswot.training.trainable import Distillation

    images = chosen.load_images()
    pretrained = chosen.alone and chosen.teacher.pretrained
    build, _ = inputs.named_student(chosen.student, chosen.space, images, pretrained=pretrained)
    teacher, classes, lines = chosen.load_teacher(images, record) or (None, None, ())
    student = fresh(build, "default", training.seed)
    named = partial(trainings.recipe, training, chosen.images.name, alone=chosen.alone)
    recipe = named(student=student, record=record)
    given, choice = Distillation(teacher, student, images, recipe, classes), chosen.options.start
    start = resumed(choice, record) if record else begin(choice, given)
    if start.place == FRESH and not pretrained:
        recipe = named(student=student, record=record, fresh=True)
    line = "" if training.recipe is not None else trainings.default_line(student, recipe)
    said = [] if record else [each for each in (*lines, start.line, line) if each]
    return replace(given, recipe=recipe), start, said
