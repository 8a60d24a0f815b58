"""The best students of a search, distilled briefly; the best of those by measured accuracy.

A score is a guess; a short training is a better one, at a price. Successive halving (Jamieson and
Talwalkar, AISTATS 2016; asynchronous: Li et al., MLSys 2020) stops those that are behind. The
accuracy is that of a fifth of the training images, which is held out from these trainings; the
test images decide nothing. What is tuned of the training is searched together with the
architecture, in one Optuna study.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.trial import FrozenTrial, TrialState
from torch import nn

from diswot.data.dataset import Dataset, Split, hold_out
from diswot.errors import SearchFailed, UserError, unknown
from diswot.knowledge.registry import get_distance
from diswot.models.initialization import fresh
from diswot.nas.result import Student
from diswot.spaces.registry import build_network
from diswot.spaces.validation import Build
from diswot.storage.study import open_storage, open_study
from diswot.training import checkpoint
from diswot.training.checkpoint import Row
from diswot.training.distill import distill
from diswot.training.recipe import Recipe

KEEP = 3  # of so many that reach an epoch at which is looked, one goes on
RANGE = 4.0  # a tuned rate moves by up to this factor, up and down
WEIGHTS = 10.0  # and a weight by this
TEMPERATURES = (1.0, 16.0)

Changes = dict[str, Any]


@dataclass(frozen=True)
class Trained:
    """A candidate that was distilled briefly.

    Attributes:
        student: As the search found it, with its score.
        accuracy: On the held-out images after the last epoch that it reached, in %.
        epochs: Epochs that it reached; fewer than asked for where it was stopped.
        changes: What was tuned of the recipe.
        trial: Number of the trial.
    """

    student: Student
    accuracy: float
    epochs: int
    changes: Mapping[str, Any]
    trial: int


@dataclass(frozen=True)
class Verified:
    """What the short trainings said.

    Attributes:
        best: Of those that were trained to the end, the most accurate.
        trained: All, the most accurate first, those that were stopped last.
        failed: Trainings that could not be done.
        held_out: Images that the accuracy was measured on.
    """

    best: Trained
    trained: tuple[Trained, ...]
    failed: int
    held_out: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def verify(
    students: Sequence[Student],
    teacher: nn.Module,
    space: Build,
    data: Dataset,
    recipe: Recipe,
    *,
    tune: Sequence[str] = (),
    trials: int | None = None,
    storage: str | Path | None = None,
    study_name: str = "verify",
    resume: bool = False,
    on_trial: Callable[[int, int, float | None], None] = lambda done, total, best: None,
) -> Verified:
    """Distil each student briefly and return the most accurate.

    Args:
        students: The candidates, the best by score first.
        teacher: Trained.
        space: Builds them.
        data: Its training images are split; its test images are not looked at.
        recipe: How to train each; its seed is that of the tuning, too.
        tune: Keys of `TUNED` that are searched with the architecture.
        trials: Trainings; one for each student, or, where something is tuned, four.
        storage: A folder for the journal, or an Optuna storage URL; memory if not given.
        study_name: Name of the study in the storage.
        resume: Go on with the study that is there; a training that was stopped starts anew.
        on_trial: Called at first and after each training, with those done, all, and the best
            accuracy so far.

    Raises:
        UserError: There is nothing to train on, or what is to be tuned is unknown.
        SearchFailed: Every training failed.
    """
    for name in tune:
        if name not in TUNED:
            raise unknown("setting to tune", name, TUNED)
    _check_tuned(recipe, tune)
    held = held_out(data)
    sampler = optuna.samplers.TPESampler(seed=recipe.seed, n_startup_trials=len(students))
    study = open_study(open_storage(storage), study_name, sampler, resume=resume)
    study.pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=KEEP)
    _agree(study, {"recipe": recipe.as_dict(), "tune": list(tune), "data": data.name,
                   "teacher": checkpoint.checksum(teacher),
                   "students": [dict(each.params) for each in students]})  # fmt: skip
    brief = _Brief(students, teacher, space, held, recipe, tune)
    total = trials or len(students) * (4 if tune else 1)
    _queue(study, brief, total)
    while (done := len(_ended(study))) < total:
        on_trial(done, total, _highest(study))
        brief.train(study, study.ask())
    on_trial(total, total, _highest(study))
    return _verified(study, students, held)


def held_out(data: Dataset) -> Dataset:
    """The training images alone: four fifths to train on, a fifth to measure on.

    Raises:
        UserError: There are none, or too few.
    """
    if data.train is None:
        raise UserError(f"{data.name} has no images to train on")
    train, test = (_part(data.train, part) for part in hold_out(data.train.labels.numpy()))
    return replace(data, train=train, test=test)


def _part(split: Split, chosen: Any) -> Split:
    indices = torch.as_tensor(chosen)

    def read(wanted: Sequence[int]) -> torch.Tensor:
        return split.read(indices[torch.as_tensor(wanted)].tolist())

    return Split(split.labels[indices], read)


def _temperature(trial: optuna.Trial, recipe: Recipe) -> Changes:
    return {"temperature": trial.suggest_float("temperature", *TEMPERATURES, log=True)}


def _rate(trial: optuna.Trial, recipe: Recipe) -> Changes:
    low, high = recipe.lr / RANGE, recipe.lr * RANGE
    return {"lr": trial.suggest_float("lr", low, high, log=True)}


def _weights(trial: optuna.Trial, recipe: Recipe) -> Changes:
    tuned = {
        name: trial.suggest_float(f"weight_{name}", weight / WEIGHTS, weight * WEIGHTS, log=True)
        for name, weight in recipe.losses.items()
        if weight
    }
    return {"losses": {**recipe.losses, **tuned}}


TUNED: dict[str, Callable[[optuna.Trial, Recipe], Changes]] = {
    "temperature": _temperature,
    "weights": _weights,
    "lr": _rate,
}
"""What can be tuned of a training: functions that suggest settings of a recipe."""


def _check_tuned(recipe: Recipe, tune: Sequence[str]) -> None:
    softens = any("temperature" in get_distance(name).defaults for name in recipe.losses)
    if "temperature" in tune and not softens:
        raise UserError("no loss has a temperature to tune")


@dataclass(frozen=True)
class _Brief:
    """What the short trainings share."""

    students: Sequence[Student]
    teacher: nn.Module
    space: Build
    data: Dataset
    recipe: Recipe
    tune: Sequence[str]

    def train(self, study: optuna.Study, trial: optuna.Trial) -> None:
        """One of them, told to the study."""
        place = trial.suggest_categorical("candidate", list(range(len(self.students))))
        changes: Changes = {}
        for name in self.tune:
            changes |= TUNED[name](trial, self.recipe)
        trial.set_user_attr("changes", changes)

        def on_epoch(row: Row) -> None:
            trial.report(row["test_accuracy"], int(row["epoch"]))
            if row["epoch"] < self.recipe.epochs and trial.should_prune():
                raise optuna.TrialPruned

        build = partial(build_network, self.space, self.students[place].params)
        model = fresh(build, "default", self.recipe.seed)
        try:
            made = distill(
                model, self.teacher, self.data, replace(self.recipe, **changes), on_epoch=on_epoch
            )
        except optuna.TrialPruned:
            study.tell(trial, state=TrialState.PRUNED)
        except (FloatingPointError, UserError) as error:
            trial.set_user_attr("failed", str(error))
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, made.test_accuracy)


def _agree(study: optuna.Study, facts: Mapping[str, Any]) -> None:
    """Store the facts of a new study; refuse to go on with one that differs in them."""
    before = study.user_attrs.get("verify")
    if before is None:
        study.set_user_attr("verify", dict(facts))
        return
    for name, value in facts.items():
        if before.get(name) != value:
            raise UserError(f"the verification to resume has another {name}; choose another place")


def _queue(study: optuna.Study, brief: _Brief, total: int) -> None:
    """Each student once first, as the recipe says; those that were not finished again."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    seen = {trial.params.get("candidate") for trial in _ended(study)}
    waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
    seen |= {trial.system_attrs["fixed_params"]["candidate"] for trial in waiting}
    plain: dict[str, float] = {"lr": brief.recipe.lr} if "lr" in brief.tune else {}
    if "temperature" in brief.tune:
        plain["temperature"] = brief.recipe.temperature or _own_temperature(brief.recipe)
    if "weights" in brief.tune:
        plain |= {
            f"weight_{name}": weight for name, weight in brief.recipe.losses.items() if weight
        }
    for place in range(min(len(brief.students), total)):
        if place not in seen:
            study.enqueue_trial({"candidate": place, **plain})


def _own_temperature(recipe: Recipe) -> float:
    """The one that the first of the losses with a temperature has by itself."""
    own = [get_distance(name).defaults.get("temperature") for name in recipe.losses]
    return float(str(next(each for each in own if each is not None)))


def _ended(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that came to an end of their own; not those that a killed process left."""
    trials = study.get_trials(deepcopy=False)
    done = (TrialState.COMPLETE, TrialState.PRUNED)
    return [t for t in trials if t.state in done or "failed" in t.user_attrs]


def _highest(study: optuna.Study) -> float | None:
    values = [t.value for t in _ended(study) if t.value is not None and t.state.is_finished()]
    return max(values, default=None)


def _verified(study: optuna.Study, students: Sequence[Student], held: Dataset) -> Verified:
    ended = _ended(study)
    trained = [_trained(t, students) for t in ended if "failed" not in t.user_attrs]
    trained.sort(key=lambda each: (-each.epochs, -each.accuracy, each.trial))
    if not trained:
        reason = ended[0].user_attrs["failed"]
        raise SearchFailed(f"no student could be verified; {len(ended)} failed, such as: {reason}")
    assert held.test is not None
    failed = len(ended) - len(trained)
    return Verified(trained[0], tuple(trained), failed, len(held.test))


def _trained(trial: FrozenTrial, students: Sequence[Student]) -> Trained:
    last = max(trial.intermediate_values)
    return Trained(
        students[trial.params["candidate"]],
        trial.intermediate_values[last],
        last,
        trial.user_attrs["changes"],
        trial.number,
    )
