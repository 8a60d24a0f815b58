"""`diswot search --verify`: the best students by score, distilled briefly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from diswot.cli import console, inputs, training
from diswot.cli import like as alike
from diswot.cli.teachers import matched_teacher
from diswot.cli.training_options import TrainingOptions
from diswot.errors import UserError
from diswot.storage.run_files import VERIFICATION
from diswot.training.progress import epoch_note
from diswot.utils.units import show_number, show_params

if TYPE_CHECKING:
    from torch import nn

    from diswot.cli.options import VerifyOptions
    from diswot.cli.search_job import SearchJob
    from diswot.data.dataset import Dataset
    from diswot.nas.result import SearchResult, Student
    from diswot.spaces.registry import Params
    from diswot.training.recipe import Recipe
    from diswot.training.verified import Verified
    from diswot.utils.progress import Advance

EPOCHS = 9
_UNTRAINED = (
    "to verify students a teacher must be trained; give --teacher-weights, --pretrained or "
    "--trained"
)
_UNUSED = ("verify_epochs", "verify_trials", "tune", "recipe", "losses")


def check(options: VerifyOptions, named: inputs.NamedTeacher, seed: int) -> None:
    """Refuse before the search what could not be verified after it."""
    if not options.verify:
        for name in _UNUSED:
            if getattr(options, name):
                option = name.replace("_", "-")
                raise UserError(f"--{option} goes with --verify: name how many students")
        return
    from diswot.data.dataset import held_out
    from diswot.training.trainable import check_recipe
    from diswot.training.tuning import check_tuned

    if not named.trained:
        raise UserError(_UNTRAINED)
    if named.images.train is None:
        raise UserError(f"{named.images.name} has no images to train on; name others with --data")
    held_out(named.images)
    for fresh in (False, True):
        recipe = _recipe(options, named.images, seed, fresh=fresh)
        check_tuned(recipe, _tuned(options))
        check_recipe(recipe, named.images)


def _recipe(
    options: VerifyOptions,
    images: Dataset,
    seed: int,
    student: nn.Module | None = None,
    *,
    fresh: bool = False,
) -> Recipe:
    """Return the recipe of the short trainings, by default that of the student."""
    from diswot.training.recipe_files import DETECTOR, default_recipe

    default = DETECTOR if images.task == "detection" else default_recipe(student)
    name, epochs = options.recipe or default, options.verify_epochs or EPOCHS
    given = TrainingOptions(recipe=name, epochs=epochs, losses=options.losses, seed=seed)
    return training.recipe(given, images.name, alone=False, fresh=fresh)


def _tuned(options: VerifyOptions) -> list[str]:
    return [part.strip() for part in (options.tune or "").split(",") if part.strip()]


def verified(
    options: VerifyOptions, job: SearchJob, found: SearchResult, advance: Advance
) -> Verified | None:
    """Distil the best students briefly, and the network of --like beside; None without --verify.

    The trials are kept where those of the search are.
    """
    if not options.verify:
        return None
    from diswot.models.initialization import fresh
    from diswot.spaces.registry import build_network
    from diswot.storage.study import alone
    from diswot.training.verify import recorded_students, verify

    images, seed, place, study = job.named.images, job.scoring.seed, job.place, job.study
    space = job.space()
    best = fresh(partial(build_network, space, dict(found.best.params)), "default", seed)
    taught = matched_teacher(job.named.options, images)
    recipe = _recipe(options, images, seed, best)
    shown = _Shown(advance, recipe.epochs)
    folder = place if isinstance(place, Path) else None
    kept = place if folder is None else folder / VERIFICATION
    name = f"{study.study}-verify"
    resume = study.resume or folder is None  # processes that share a storage share its trainings
    with nullcontext() if folder is None else alone(folder):
        return verify(
            _students(found, options.verify, recorded_students(kept, name) if resume else []),
            taught.model,
            space,
            images,
            recipe,
            fresh_recipe=_recipe(options, images, seed, best, fresh=True),
            baseline=alike.network(job.like["network"], job.goal.space, images)[0]
            if job.like
            else None,
            teacher_classes=taught.classes,
            tune=_tuned(options),
            trials=options.verify_trials,
            storage=kept,
            study_name=name,
            resume=resume,
            on_trial=shown.on_trial,
            on_epoch=shown.on_epoch,
        )


class _Shown:
    """The progress of the short trainings."""

    def __init__(self, advance: Advance, epochs: int) -> None:
        self._advance, self._epochs, self._at = advance, epochs, (0, 0)

    def on_trial(self, done: int, total: int, best: float | None) -> None:
        """Show how many trainings have ended."""
        self._at = done, total
        note = "" if best is None else f"best {best:.2f} % of held-out images"
        self._advance("verifying", done, total, note)

    def on_epoch(self, row: Mapping[str, float]) -> None:
        """Show an epoch of the current training."""
        note = epoch_note(int(row["epoch"]), self._epochs, row, "held-out")
        self._advance("verifying", *self._at, note, line=True)


def _students(found: SearchResult, count: int, begun: Sequence[Params]) -> Sequence[Student]:
    """Return the students to train: the best that differ, or those that `begun` names."""
    listed = [*found.top, *found.diverse]
    again = [next((s for s in listed if s.params == params), None) for params in begun]
    same = [student for student in again if student is not None]
    return same if len(same) == len(begun) == count else found.diverse[:count]


def show(result: Mapping[str, Any], proxy: str) -> None:
    """Print a row for each training, with accuracies at equal epochs, and a line on the winner."""
    from diswot.runs.verification import verification

    tried = verification(dict(result))
    assert tried is not None
    tuned = any(each.changes for each in tried.rows)
    rows = [
        [
            show_params(each.params),
            *([show_params(_flat(each.changes))] * tuned),
            f"{each.student['score']:.5g}",
            *(f"{each.by_epoch[end]:.2f}" if end in each.by_epoch else "" for end in tried.epochs),
            each.outcome,
        ]
        for each in tried.rows
    ]
    title = f"distilled briefly: {tried.measure} in % on {tried.held_out} held-out training images"
    after = [f"after {show_number(end, 'epoch')}" for end in tried.epochs]
    names = ["student", *["tuned"] * tuned, proxy, *after, "outcome"]
    console.table(title, names, rows, text=1 + tuned)
    first = tried.rows[0]
    won = f"{show_params(first.params)}: {first.accuracy:.2f} % {tried.standing()}"
    console.line(f"winner: {won}")
    console.line(tried.starts())
    if like := result["like"]:
        console.line(tried.comparison(like["network"]))


def distill_options(options: VerifyOptions, result: Verified | None) -> str:
    """Return the options of `diswot distill` that train as the most accurate student was."""
    if result is None:
        return ""
    changes = dict(result.best.changes)
    tuned = ",".join(f"{name}:{weight:.3g}" for name, weight in changes.pop("losses", {}).items())
    given = {"recipe": options.recipe, "losses": tuned or options.losses}
    given |= {name: f"{number:.3g}" for name, number in changes.items()}
    return "".join(
        f" --{name} {quote(str(value))}" for name, value in given.items() if value is not None
    )


def _flat(changes: Mapping[str, Any]) -> dict[str, str]:
    """Return what was tuned, for a table's cell."""
    flat: dict[str, str] = {}
    for name, value in changes.items():
        inner = value if isinstance(value, Mapping) else {name: value}
        flat |= {key: f"{number:.3g}" for key, number in inner.items()}
    return flat
