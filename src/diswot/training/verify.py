"""Short distillations of the best students of a search; the most accurate wins.

A score predicts; a short training measures, at a price. Successive halving (Jamieson and
Talwalkar, AISTATS 2016; asynchronous: Li et al., MLSys 2020) stops the trainings that are behind.
The accuracy is measured on a fifth of the training images, which is held out from these trainings;
the test images decide nothing. A student starts from its teacher where `diswot distill` would
start it there. Settings of the training can be searched together with the architecture, in one
Optuna study.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from torch import nn

from diswot.data.dataset import Dataset, held_out
from diswot.errors import SearchFailed, UserError, one_line
from diswot.models.initialization import fresh
from diswot.nas.result import Student
from diswot.spaces.registry import Params, build_network
from diswot.spaces.validation import Build
from diswot.storage.run_files import FRESH
from diswot.storage.study import name_metrics, open_study, opened
from diswot.tasks.registry import task_of
from diswot.training import checkpoint
from diswot.training.checkpoint import EpochRow
from diswot.training.distill import distill
from diswot.training.evaluation import accuracy_interval, overlap
from diswot.training.recipe import Recipe
from diswot.training.starts import Start, begin
from diswot.training.trainable import Distillation
from diswot.training.tuning import check_tuned, suggested, untuned
from diswot.training.verified import ShortTraining, Verified
from diswot.utils.agreement import require_same

REDUCTION = 3  # of this many trainings that reach a rung, one continues
BASELINE = "baseline"  # attribute of the baseline's trial


def verify(
    students: Sequence[Student],
    teacher: nn.Module,
    space: Build,
    data: Dataset,
    recipe: Recipe,
    *,
    fresh_recipe: Recipe | None = None,
    baseline: Callable[[], nn.Module] | None = None,
    teacher_classes: Sequence[int] | None = None,
    tune: Sequence[str] = (),
    trials: int | None = None,
    storage: str | Path | None = None,
    study_name: str = "verify",
    resume: bool = False,
    on_trial: Callable[[int, int, float | None], None] = lambda done, total, best: None,
    on_epoch: Callable[[EpochRow], None] = lambda row: None,
) -> Verified:
    """Distil each student briefly and return the most accurate.

    A student starts from its teacher if more than half of its parameters fit, else at random. If
    the version that began a study started all students at random, the others do too, by `recipe`.

    Args:
        students: Students of the search, the best by score first.
        teacher: A trained network.
        space: Builds the students.
        data: Its training images are split.
        recipe: Settings of each training. Its seed is the seed of the tuning, too.
        fresh_recipe: Settings of the trainings that start with random weights. Default: `recipe`.
        baseline: Builds a network that is trained after the students, as the winner was.
        teacher_classes: As in `distill`.
        tune: Keys of `TUNED` that are searched with the architecture.
        trials: Number of trainings. Default: one a student, or four if something is tuned.
        storage: Folder of the journal, or an Optuna storage URL; None for memory.
        study_name: Name of the study in the storage.
        resume: Whether to continue the study. A training that was interrupted starts again.
        on_trial: Called at first and after each training: trainings done, of all, best accuracy.
        on_epoch: Called after each epoch with its row, whose test accuracy is the held-out one.

    Raises:
        UserError: There are no images to train on, or a setting to tune is unknown.
        SearchFailed: Every training failed.
    """
    recipes = recipe, fresh_recipe or recipe
    for each in recipes:
        check_tuned(each, tune)
    held = held_out(data)
    sampler = optuna.samplers.TPESampler(seed=recipe.seed, n_startup_trials=len(students))
    total = trials or len(students) * (4 if tune else 1)
    with opened(storage) as place:
        study = open_study(place, study_name, sampler, resume=resume)
        study.pruner = optuna.pruners.SuccessiveHalvingPruner(1, REDUCTION)
        inherits = study.user_attrs.get("verify", {"inherits": True}).get("inherits", False)
        brief = _ShortTrainings(
            students, teacher, teacher_classes, space, held, *recipes, tune, on_epoch, inherits
        )
        _run(study, brief, total, on_trial, shared="://" in str(storage))
        found = _verified(study, students, held)
        return found if baseline is None else _with_baseline(study, brief, found, baseline)


def recorded_students(storage: str | Path | None, study_name: str) -> list[Params]:
    """Return the parameters of the students of a verification that has begun; else none."""
    with opened(storage) as place:
        if place is None or study_name not in optuna.get_all_study_names(place):
            return []
        facts = optuna.load_study(study_name=study_name, storage=place).user_attrs.get("verify")
    return list(facts["students"]) if facts else []


@dataclass(frozen=True)
class _ShortTrainings:
    """Settings that the short trainings share."""

    students: Sequence[Student]
    teacher: nn.Module
    classes: Sequence[int] | None
    space: Build
    data: Dataset
    recipe: Recipe
    fresh_recipe: Recipe
    tune: Sequence[str]
    on_epoch: Callable[[EpochRow], None]
    inherits: bool

    def facts(self) -> dict[str, Any]:
        """Return what a resumed verification must share."""
        start = {"inherits": True, "fresh_recipe": self.fresh_recipe.as_dict()}
        return {
            "recipe": self.recipe.as_dict(),
            "tune": list(self.tune),
            "data": self.data.name,
            "teacher": checkpoint.checksum(self.teacher),
            "students": [dict(each.params) for each in self.students],
            **(start if self.inherits else {}),
        }

    def build(self, place: int) -> Callable[[], nn.Module]:
        """Return a function that builds a student."""
        return partial(build_network, self.space, self.students[place].params)

    def begin(self, build: Callable[[], nn.Module]) -> tuple[nn.Module, Start, Recipe]:
        """Build a network with its first weights, and choose the recipe that goes with them."""
        model = fresh(build, "default", self.recipe.seed)
        if not self.inherits:
            return model, Start(), self.recipe
        teacher = self.teacher.cpu()
        given = Distillation(teacher, model, self.data, self.recipe, self.classes)
        start = begin(None, given)
        return model, start, self.fresh_recipe if start.place == FRESH else self.recipe

    def train(
        self,
        study: optuna.Study,
        baseline: Callable[[], nn.Module] | None = None,
        changes: Mapping[str, Any] | None = None,
    ) -> None:
        """Train the student that the study asks for, or the baseline; tell the study its result.

        The recipe has some `changes`, by default those that the study suggests.
        """
        trial = study.ask()
        if baseline is None:
            places = list(range(len(self.students)))
            build = self.build(trial.suggest_categorical("candidate", places))
        else:
            trial.set_user_attr(BASELINE, True)
            build = baseline
        try:
            model, start, recipe = self.begin(build)
            trial.set_user_attr("start", start.facts())
            changes = suggested(trial, recipe, self.tune) if changes is None else changes
            tuned = replace(recipe, **changes)
            named = {"losses": tuned.weights} if "losses" in changes else {}
            trial.set_user_attr("changes", {**changes, **named})
            accuracy = self._accuracy(trial, model, tuned)
        except optuna.TrialPruned:
            study.tell(trial, state=TrialState.PRUNED)
        except Exception as error:  # a network of a user, or a full GPU, may raise anything
            said = str(error) if isinstance(error, FloatingPointError | UserError) else ""
            trial.set_user_attr("failed", said or one_line(error))
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, accuracy)

    def untuned(self, place: int) -> dict[str, float]:
        """Return the tuned parameters of a trial at which a student's recipe is as given."""
        return untuned(self.begin(self.build(place))[2], self.tune) if self.tune else {}

    def _accuracy(self, trial: optuna.Trial, model: nn.Module, recipe: Recipe) -> float:
        """Train a student, unless the pruner stops it; return its accuracy in %."""
        measure = task_of(self.data).result

        def on_epoch(row: EpochRow) -> None:
            self.on_epoch(row)
            trial.report(row[measure], int(row["epoch"]))
            whole = BASELINE in trial.user_attrs or row["epoch"] == recipe.epochs
            if not whole and trial.should_prune():
                raise optuna.TrialPruned

        given = self.teacher, model, self.data, recipe
        return distill(*given, teacher_classes=self.classes, on_epoch=on_epoch).test_result


def _run(
    study: optuna.Study,
    brief: _ShortTrainings,
    total: int,
    on_trial: Callable[[int, int, float | None], None],
    *,
    shared: bool,
) -> None:
    """Train students until `total` trials have ended; of a `shared` storage others may train."""
    _agree(study, brief.facts())
    if not shared:
        _fail_running(study)
    _queue(study, brief, total)
    while (done := len(_ended(study))) < total:
        on_trial(done, total, _highest(study))
        brief.train(study)
    on_trial(total, total, _highest(study))


def _agree(study: optuna.Study, facts: dict[str, Any]) -> None:
    """Store the facts of a new study; refuse to resume one whose facts differ."""
    before = study.user_attrs.get("verify")
    if before is None:
        study.set_user_attr("verify", facts)
        name_metrics(study, ["held-out accuracy"])
        return
    own = Recipe().as_dict()  # an older version had fewer settings
    recipes = {
        name: {**own, **before[name]} for name in ("recipe", "fresh_recipe") if name in before
    }
    require_same({**before, **recipes}, facts, "the verification to resume")


def _fail_running(study: optuna.Study) -> None:
    """Fail the trials that were interrupted."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)


def _queue(study: optuna.Study, brief: _ShortTrainings, total: int) -> None:
    """Enqueue each student that is neither done nor waiting once, with the recipe as given."""
    seen = {trial.params.get("candidate") for trial in _ended(study)}
    waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
    seen |= {trial.system_attrs["fixed_params"]["candidate"] for trial in waiting}
    for place in range(min(len(brief.students), total)):
        if place not in seen:
            study.enqueue_trial({"candidate": place, **brief.untuned(place)})


def _ended(study: optuna.Study, *, baseline: bool = False) -> list[FrozenTrial]:
    """Return the students' trials, or the baseline's, that came to an end.

    Those of a killed process did not.
    """
    done = (TrialState.COMPLETE, TrialState.PRUNED)
    return [
        t
        for t in study.get_trials(deepcopy=False)
        if (BASELINE in t.user_attrs) == baseline and (t.state in done or "failed" in t.user_attrs)
    ]


def _highest(study: optuna.Study) -> float | None:
    """Return the highest accuracy of the students that were trained to the last epoch."""
    done = [t for t in _ended(study) if t.state == TrialState.COMPLETE]
    return max((t.value for t in done if t.value is not None), default=None)


def _verified(study: optuna.Study, students: Sequence[Student], held: Dataset) -> Verified:
    ended = _ended(study)
    assert held.test is not None
    images = len(held.test) if task_of(held).share else None
    done = [t for t in ended if "failed" not in t.user_attrs]
    trained = [_trained(t, students[t.params["candidate"]], images) for t in done]
    trained.sort(key=lambda each: (-each.epochs, -each.accuracy, each.trial))
    if not trained:
        reason = ended[0].user_attrs["failed"]
        raise SearchFailed(f"no student could be verified; {len(ended)} failed, such as: {reason}")
    best, *others = trained
    tied = tuple(
        each.trial
        for each in others
        if each.epochs == best.epochs and overlap(each.interval, best.interval)
    )
    failed, measure = len(ended) - len(trained), task_of(held).measure.removeprefix("test ")
    return Verified(best, tuple(trained), tied, failed, len(held.test), measure)


def _with_baseline(
    study: optuna.Study, brief: _ShortTrainings, found: Verified, build: Callable[[], nn.Module]
) -> Verified:
    """Train the baseline as the winner was, unless the study has it; add it if it succeeded."""
    if not _ended(study, baseline=True):
        brief.train(study, build, found.best.changes)
    images = None if found.best.interval is None else found.held_out
    done = [t for t in _ended(study, baseline=True) if "failed" not in t.user_attrs]
    return replace(found, baseline=_trained(done[0], None, images)) if done else found


def _trained(trial: FrozenTrial, student: Student | None, images: int | None) -> ShortTraining:
    """Return a training that came to an end; its accuracy may be a share of some `images`."""
    accuracies = tuple(trial.intermediate_values[n] for n in sorted(trial.intermediate_values))
    return ShortTraining(
        student,
        accuracies[-1],
        None if images is None else accuracy_interval(accuracies[-1], images),
        accuracies,
        len(accuracies),
        trial.user_attrs["changes"],
        trial.number,
        trial.user_attrs.get("start", Start().facts()),
    )
