"""What a training begins with: both networks, the images, the recipe and the student's weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from diswot.cli import inputs
from diswot.cli import training as trainings
from diswot.storage.run_files import FRESH
from diswot.utils.user_code import rooted

if TYPE_CHECKING:
    from diswot.cli.subject import Subject
    from diswot.cli.training_options import TrainingOptions
    from diswot.training.starts import Start
    from diswot.training.trainable import Distillation


@dataclass(frozen=True)
class Beginning:
    """What a training begins with.

    Attributes:
        given: The student with its first weights, and what it learns from.
        start: Where these weights are from.
        facts: What the record of the training says of the student, the teacher and the images.
        lines: What a user may not expect; empty if the training is resumed.
    """

    given: Distillation
    start: Start
    facts: dict[str, Any]
    lines: list[str]


def prepare(chosen: Subject, training: TrainingOptions, record: Mapping[str, Any]) -> Beginning:
    """Build both networks and load the images; give the student its first weights.

    A resumed training has the record of its checkpoint, whose weights are loaded over those of the
    student, which are random here.
    """
    from diswot.models.initialization import fresh
    from diswot.training.starts import begin, resumed
    from diswot.training.trainable import Distillation

    images = chosen.load_images()
    pretrained = chosen.alone and chosen.teacher.pretrained
    build, named = inputs.named_student(chosen.student, chosen.space, images, pretrained=pretrained)
    teacher, classes, lines = chosen.load_teacher(images, record) or (None, None, ())
    student = fresh(build, "default", training.seed)
    how = partial(
        trainings.recipe,
        training,
        chosen.images.name,
        alone=chosen.alone,
        student=student,
        record=record,
    )
    recipe = how()
    given = Distillation(teacher, student, images, recipe, classes)
    choice = chosen.options.start
    start = resumed(choice, record) if record else begin(choice, given)
    if start.place == FRESH and not pretrained:
        recipe = how(fresh=True)
        given = replace(given, recipe=recipe)
    usual = "" if training.recipe is not None else trainings.default_line(student, recipe)
    said = [] if record else [line for line in (*lines, start.line, usual) if line]
    return Beginning(given, start, {"student": rooted(named), **chosen.facts()}, said)
