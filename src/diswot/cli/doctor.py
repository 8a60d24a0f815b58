"""`diswot doctor`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated

from typer import Option

from diswot.cli import console
from diswot.cli import training as trainings
from diswot.cli.grouping import grouped
from diswot.cli.options import OutputOptions
from diswot.cli.subject import subject_of
from diswot.cli.training_options import SearchFolder, SubjectOptions, TrainingOptions
from diswot.errors import UserError
from diswot.utils.units import show_number

if TYPE_CHECKING:
    from diswot.training.finding import Finding

_Images = Annotated[
    int, Option(min=10, help="Most training images, and most test images, to look at.")
]


@grouped("student", "teacher", "teacher_weights", "data", "recipe", "epochs", "images")
def doctor(
    run: SearchFolder = None,
    *,
    subject: SubjectOptions,
    training: TrainingOptions,
    images: _Images = 1000,
    output: OutputOptions,
) -> None:
    """Check a distillation before it is trained.

    The options are those of distill.
    """
    chosen = subject_of(run, subject)
    if chosen.alone:
        raise UserError("the doctor looks at a teacher and its student; name a teacher: --teacher")
    # What is impossible is refused before anything is read.
    trainings.recipe(training, chosen.images.name, alone=chosen.alone)
    from diswot.training.doctor import diagnose

    with console.progress(quiet=output.quiet) as advance:
        given, _, lines = chosen.prepare(training, {})
        assert given.teacher is not None
        findings = diagnose(
            given.teacher,
            given.student,
            given.data,
            given.recipe,
            images=images,
            teacher_classes=given.classes,
            on_check=partial(advance, "checking"),
        )
    console.note(*lines, quiet=output.quiet)
    _show(findings, output.as_json)


def _show(findings: Sequence[Finding], as_json: bool) -> None:
    """Print a line for each finding, and how many are wrong or warnings."""
    levels = Counter(each.level for each in findings)
    if as_json:
        found = [asdict(each) for each in findings]
        console.show_json({"wrong": levels["wrong"], "warnings": levels["warning"], "found": found})
        return
    for each in findings:
        remedy = f". Remedy: {each.remedy}" if each.remedy else ""
        console.line(f"{each.level:8}{each.check}: {each.text}{remedy}")
    console.line(f"{levels['wrong']} wrong, {show_number(levels['warning'], 'warning')}")
