"""`diswot distill`."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from typer import Option

from diswot.cli import console
from diswot.cli import training as trainings
from diswot.cli.grouping import grouped
from diswot.cli.options import OutputOptions
from diswot.cli.subject import Subject, subject_of
from diswot.cli.training_options import SearchFolder, SubjectOptions, TrainingOptions
from diswot.errors import UserError
from diswot.runs import folder
from diswot.storage.run_writer import TRAINING
from diswot.training.progress import TrainingProgress, tested
from diswot.utils.user_code import short_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from diswot.utils.progress import Advance


@dataclass(frozen=True)
class KeepingOptions:
    """Options of reading the images, and of the files that a training keeps.

    Attributes:
        hold: Hold all images in memory, or read them as they are needed. Default: hold them if they
            fit.
        tensorboard: Write the training curves for TensorBoard as well.
        out: Folder of the training. Default: RUN/distilled, or RUN/alone without a teacher; for
            another student the first free one of runs/NAME-distilled-1 and so on.
        no_out: Keep no folder of the training, and so no weights.
        resume: Continue a run that was interrupted.
    """

    headings: ClassVar = {"Compute": "hold", "Output": "tensorboard no_out"}

    hold: Annotated[bool | None, Option("--hold/--stream")] = None
    tensorboard: Annotated[bool, Option("--tensorboard")] = False
    out: Path | None = None
    no_out: Annotated[bool, Option("--no-out")] = False
    resume: Annotated[bool, Option("--resume")] = False


@grouped("student", "teacher", "teacher_weights", "data", "recipe", "epochs", "out", "resume")
def distill(
    run: SearchFolder = None,
    *,
    subject: SubjectOptions,
    training: TrainingOptions,
    keeping: KeepingOptions,
    output: OutputOptions,
) -> None:
    """Train the found student, or another, from a teacher or alone."""
    chosen = subject_of(run, subject)
    # What is impossible is refused before anything is read.
    trainings.recipe(training, chosen.images.name, alone=chosen.alone)
    quiet = output.quiet or not trainings.main_process()
    with ExitStack() as stack:
        place = stack.enter_context(_folder(keeping, run, chosen))
        stack.enter_context(folder.resumable(place))
        advance = stack.enter_context(console.progress(quiet=quiet))
        result = _train(chosen, training, keeping, place, advance, quiet=quiet)
    if not trainings.main_process():
        return
    if output.as_json:
        console.show_json(result)
        return
    name = chosen.title if place is None else str(place)
    in_run = place is not None and place.parent == run
    _show(folder.training_results(run) if run and in_run else {name: result})
    trainings.show_classes(name, result)
    kept = f"kept in {place}, the weights in student.safetensors"
    console.note(console.NOT_KEPT if place is None else kept, quiet=output.quiet)


def _folder(
    keeping: KeepingOptions, run: Path | None, chosen: Subject
) -> AbstractContextManager[Path | None]:
    """Give the folder of the training; of several processes, the main one makes it."""
    out, no_out = keeping.out, keeping.no_out
    if out is None and run is not None and chosen.search is not None and not no_out:
        out = chosen.folder_in(run)
    if out is None and keeping.resume:
        raise UserError("name what to resume: the training's --out")
    if no_out and keeping.tensorboard:
        raise UserError("--tensorboard writes to the folder of the training; leave --no-out out")
    if out is not None:
        folder.refuse_used(out, TRAINING)
    elsewhere = out is None and not trainings.main_process()
    return folder.chosen(out, chosen.title, no_out=no_out or elsewhere)


def _train(
    chosen: Subject,
    training: TrainingOptions,
    keeping: KeepingOptions,
    out: Path | None,
    advance: Advance,
    *,
    quiet: bool,
) -> Mapping[str, Any]:
    """Train the student, keep the result in the folder if there is one, and return it.

    Lines on the training are printed when it begins, unless `quiet`.
    """
    from diswot.training import checkpoint
    from diswot.training.distill import distill as train

    record = checkpoint.recorded(out) if keeping.resume and out else {}
    given, start, lines = chosen.prepare(training, record)
    shown = TrainingProgress(advance, given.recipe, partial(console.note, *lines, quiet=quiet))
    made = train(
        given.teacher,
        given.student,
        given.data,
        given.recipe,
        out=out,
        resume=keeping.resume,
        hold=keeping.hold,
        tensorboard=keeping.tensorboard,
        start=start,
        facts=chosen.facts(),
        teacher_classes=given.classes,
        on_step=shown.on_step,
        on_epoch=shown.on_epoch,
        on_read=lambda done, total: advance("reading images", done, total),
    )
    return made.record


def _show(results: Mapping[str, Mapping[str, Any]]) -> None:
    """Print a row for each training, by its folder."""
    from diswot.utils.units import show_count, show_params

    rows = []
    for name, result in results.items():
        student = result["student"]
        losses = ", ".join(
            f"{weight:g} {short_name(loss)}" for loss, weight in result["losses"].items()
        )
        rows.append(
            [
                name,
                short_name(student) if isinstance(student, str) else show_params(student),
                f"{short_name(result['teacher'])}: {losses}" if result["teacher"] else "alone",
                tested(result),
                show_count(result["model_params"]),
                show_count(result["macs"]),
                str(result["epochs"]),
                f"{result['seconds']:.1f}",
            ]
        )
    columns = ["student", "taught by", "test %", "params", "MACs", "epochs", "seconds"]
    console.table("trained students", ["folder", *columns], rows, text=3)
