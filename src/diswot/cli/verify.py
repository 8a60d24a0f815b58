"""`diswot search --verify`: the best students by score, distilled briefly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diswot.cli import console, inputs, training
from diswot.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from diswot.data.dataset import Data
    from diswot.nas.result import Found
    from diswot.training.recipe import Recipe
    from diswot.training.verify import Verified

FOLDER = "verify"
EPOCHS = 9
_UNTRAINED = "to verify students a teacher must be trained; give --teacher-weights or --pretrained"


@dataclass(frozen=True)
class Wish:
    """What the user wants verified.

    Attributes:
        count: Students, the best by score; 0 for none.
        epochs: Of each training at most; None for `EPOCHS`.
        trials: Trainings; None for one a student, four where something is tuned.
        tune: Settings with commas, or None.
        recipe: Name or file of a recipe, or None.
        losses: Weighted distances, or None for the recipe's.
        seed: Of the trainings.
    """

    count: int
    epochs: int | None
    trials: int | None
    tune: str | None
    recipe: str | None
    losses: str | None
    seed: int

    def check(self, images: Data, *, trained: bool) -> None:
        """Refuse before the search what could not be verified after it."""
        from diswot.errors import unknown
        from diswot.training.verify import TUNED

        if not self.count:
            self._check_unused()
            return
        if not trained:
            raise UserError(_UNTRAINED)
        if images.train is None:
            raise UserError(f"{images.name} has no images to train on; name others with --data")
        for name in self.tuned:
            if name not in TUNED:
                raise unknown("setting to tune", name, TUNED)
        self.how(images)

    def _check_unused(self) -> None:
        given = ("verify-epochs", self.epochs), ("verify-trials", self.trials)
        words = ("tune", self.tune), ("recipe", self.recipe), ("losses", self.losses)
        for name, value in (*given, *words):
            if value:
                raise UserError(f"--{name} goes with --verify: name how many students")

    def how(self, images: Data, student: nn.Module | None = None) -> Recipe:
        """The recipe of the short trainings, by default that of the student.

        Raises:
            UserError: There is no such recipe, or a setting is impossible.
        """
        changes = {"epochs": self.most, "losses": self.losses, "seed": self.seed}
        recipe = training.recipe(self.recipe, changes, alone=False, student=student)
        return replace(recipe, flip=False) if images.name == "digits" else recipe

    @property
    def most(self) -> int:
        """Epochs of each training, at most."""
        return EPOCHS if self.epochs is None else self.epochs

    @property
    def tuned(self) -> list[str]:
        """The settings to tune."""
        return [part.strip() for part in (self.tune or "").split(",") if part.strip()]


def verified(
    wish: Wish,
    found: Found,
    master: inputs.Master,
    space: str,
    place: str | Path | None,
    study: str,
    resume: bool,
    advance: console.Advance,
) -> Verified | None:
    """The outcome of the short trainings; None where none are wanted."""
    if not wish.count:
        return None
    from diswot.models.initialization import fresh
    from diswot.spaces.registry import build_network, create_space
    from diswot.training.verify import verify

    def on_trial(done: int, total: int, best: float | None) -> None:
        note = "" if best is None else f"best {best:.2f} % of held-out images"
        advance("verifying", done, total, note)

    build = create_space(space, len(master.images.classes), master.images.size)
    best = fresh(lambda: build_network(build, dict(found.best.params)), "default", wish.seed)
    return verify(
        found.top[: wish.count],
        master.model(),
        build,
        master.images,
        wish.how(master.images, best),
        tune=wish.tuned,
        trials=wish.trials,
        storage=place / FOLDER if isinstance(place, Path) else place,
        study_name=f"{study}-verify",
        resume=resume,
        on_trial=on_trial,
    )


def show(result: Mapping[str, Any], proxy: str, epochs: int) -> None:
    """A row a training."""
    rows = [
        [
            console.show_params(each["student"]["params"]),
            console.show_params(_flat(each["changes"])),
            f"{each['student']['score']:.5g}",
            f"{each['accuracy']:.2f}",
            f"{each['epochs']} of {epochs}",
        ]
        for each in result["trained"]
    ]
    title = f"distilled briefly, measured on {result['held_out']} held-out training images"
    console.table(title, ["student", "tuned", proxy, "accuracy %", "epochs"], rows, text=2)


def options(wish: Wish, result: Verified | None) -> str:
    """What `diswot distill` is to be given to train as the most accurate was trained."""
    if result is None:
        return ""
    changes = dict(result.best.changes)
    tuned = ",".join(f"{name}:{weight:.3g}" for name, weight in changes.pop("losses", {}).items())
    given = {"recipe": wish.recipe, "losses": tuned or wish.losses}
    given |= {name: f"{number:.3g}" for name, number in changes.items()}
    return "".join(f" --{name} {value}" for name, value in given.items() if value is not None)


def _flat(changes: Mapping[str, Any]) -> dict[str, str]:
    """What was tuned, for a table's cell."""
    flat: dict[str, str] = {}
    for name, value in changes.items():
        inner = value if isinstance(value, Mapping) else {name: value}
        flat |= {key: f"{number:.3g}" for key, number in inner.items()}
    return flat
