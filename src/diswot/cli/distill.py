"""`diswot distill`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from typer import Argument, Option

from diswot.cli import console, starts
from diswot.cli import training as trainings
from diswot.cli.grouping import grouped
from diswot.cli.options import OutputOptions
from diswot.cli.subject import Subject, subject_of
from diswot.cli.training_options import SubjectOptions, TrainingOptions
from diswot.errors import UserError
from diswot.runs import folder
from diswot.training.progress import TrainingProgress, tested
from diswot.utils.user_code import rooted, short_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from diswot.utils.progress import Advance


_Run = Annotated[Path | None, Argument(metavar="RUN", help="Folder of a search.")]


@dataclass(frozen=True)
class KeepingOptions:
    """How images are read, and what a training keeps.

    Attributes:
        hold: Hold all images in memory, or read them as they are needed. Default: hold them if they
            fit.
        tensorboard: Write the training curves for TensorBoard as well.
        out: Folder of the training. Default: RUN/distilled, or RUN/alone without a teacher.
        resume: Continue a run that was interrupted.
    """

    headings: ClassVar = {"Compute": "hold", "Output": "tensorboard"}

    hold: Annotated[bool | None, Option("--hold/--stream")] = None
    tensorboard: Annotated[bool, Option("--tensorboard")] = False
    out: Path | None = None
    resume: Annotated[bool, Option("--resume")] = False


@grouped("student", "teacher", "teacher_weights", "data", "recipe", "epochs", "out", "resume")
def distill(
    run: _Run = None,
    *,
    subject: SubjectOptions,
    training: TrainingOptions,
    keeping: KeepingOptions,
    output: OutputOptions,
) -> None:
    """Train the found student, or another, from a teacher or alone."""
    chosen = subject_of(run, subject)
    starts.recipe_of(training, chosen)  # what is impossible is refused before anything is read
    place = _place(keeping.out, run, chosen)
    quiet = output.quiet or not trainings.main_process()
    with folder.resumable(place), console.progress(quiet=quiet) as advance:
        say = partial(console.note, quiet=quiet)
        _train(chosen, training, keeping, place, advance, say)
    if not trainings.main_process():
        return
    result = folder.training_result(place)
    if output.as_json:
        console.show_json(result)
        return
    in_run = run is not None and place.parent == run
    _show(folder.training_results(place.parent) if in_run else {str(place): result})
    trainings.show_classes(str(place), result)
    console.note(f"kept in {place}, the weights in student.safetensors", quiet=output.quiet)


def _place(out: Path | None, run: Path | None, chosen: Subject) -> Path:
    """Return the folder of the training."""
    if out is None and run is not None and chosen.search is not None:
        out = chosen.folder_in(run)
    if out is None:
        raise UserError("name a folder to keep the training in: --out")
    folder.refuse_for_training(out)
    return out


def _train(
    chosen: Subject,
    training: TrainingOptions,
    keeping: KeepingOptions,
    out: Path,
    advance: Advance,
    say: Callable[[str], None],
) -> None:
    """Train the student, and keep the result in the folder.

    Lines on the training are printed by `say` when it begins.
    """
    from diswot.training import checkpoint
    from diswot.training.distill import distill as train

    record = checkpoint.recorded(out) if keeping.resume else {}
    begun = starts.prepare(chosen, training, record)
    images, recipe, start = begun.images, begun.recipe, begun.start

    def say_all() -> None:
        for line in begun.lines if not record else ():
            say(line)

    shown = TrainingProgress(advance, recipe, say_all)
    train(
        begun.teacher,
        begun.student,
        images,
        recipe,
        out=out,
        resume=keeping.resume,
        hold=keeping.hold,
        tensorboard=keeping.tensorboard,
        start=start.place,
        notes=start.notes,
        facts={"student": rooted(begun.named), **chosen.facts(), "start": start.facts()},
        teacher_classes=begun.classes,
        on_step=shown.on_step,
        on_epoch=shown.on_epoch,
        on_read=lambda done, total: advance("reading images", done, total),
    )


def _show(results: Mapping[str, dict[str, Any]]) -> None:
    """Print a row for each training, by its folder."""
    from diswot.utils.units import show_count

    rows = []
    for name, result in results.items():
        student = result["student"]
        losses = ", ".join(
            f"{weight:g} {short_name(loss)}" for loss, weight in result["losses"].items()
        )
        rows.append(
            [
                name,
                short_name(student) if isinstance(student, str) else console.show_params(student),
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
