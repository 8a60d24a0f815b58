"""Short trainings of a search's best."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import TrialState
from tiny_training import SHORT, digits, measure_result, states_equal, teacher
from torch import nn
from toys import CLASSES, LinearHead, seeded, stage

from diswot.data.dataset import Dataset, held_out, whole
from diswot.errors import SearchFailed, UserError
from diswot.models.inheritance import inherit
from diswot.models.initialization import fresh
from diswot.models.registry import create_teacher
from diswot.nas.result import Student
from diswot.spaces.registry import build_network, create_space
from diswot.storage.study import open_storage
from diswot.training import verify as module
from diswot.training.batches import augmented_batches
from diswot.training.distill import distill
from diswot.training.evaluation import accuracy_interval
from diswot.training.recipe import Recipe
from diswot.training.starts import begin
from diswot.training.trainable import Distillation
from diswot.training.verify import recorded_students, verify

RECIPE = replace(SHORT, epochs=3, lr=0.2)
# In 99 steps 32 channels learn about 95 % of the digits, one channel 30 % (guessing 20 %): who is
# ahead does not hang on rounding, which it may in the 24 steps of `RECIPE`.
CLEAR = replace(RECIPE, batch_size=8)


class Width(nn.Sequential):
    def __init__(self, width: int) -> None:
        super().__init__(
            stage(3, width, 2), stage(width, width, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(width, CLASSES),
        )  # fmt: skip


def space(trial: optuna.trial.BaseTrial) -> nn.Module:
    return Width(trial.suggest_int("width", 1, 64))


def students(*widths: int) -> list[Student]:
    return [
        Student({"width": width}, -float(i), None, 0, 0, 0, None, (), i)
        for i, width in enumerate(widths)
    ]


def test_the_most_accurate_wins_with_any_score() -> None:
    """One channel cannot learn five digits; 32 can."""
    made = verify(students(1, 32, 2), teacher(), space, digits(), CLEAR)
    assert made.best.student.params == {"width": 32} and made.best.student.score == -1
    assert made.best.accuracy > 60 and made.best.epochs == 3
    assert len(made.trained) == 3 and made.failed == 0 and made.held_out == 66
    accuracies = [each.accuracy for each in made.trained if each.epochs == 3]
    assert accuracies == sorted(accuracies, reverse=True)
    json.dumps(made.as_dict())


def test_those_behind_are_stopped() -> None:
    made = verify(students(32, 1, 1, 1, 1, 1), teacher(), space, digits(), CLEAR)
    stopped = [each for each in made.trained if each.epochs < 3]
    assert len(stopped) >= 3 and all(each.student.params == {"width": 1} for each in stopped)
    assert made.trained[-1] in stopped
    assert all(len(each.accuracies) == each.epochs for each in made.trained)
    assert all(each.accuracies[-1] == each.accuracy for each in made.trained)
    assert not {each.trial for each in stopped} & set(made.tied)


def test_the_winner_is_named_with_its_interval_and_those_that_overlap() -> None:
    """Twins of one width and one seed are trained alike; one channel is far behind them."""
    made = verify(students(32, 32, 1), teacher(), space, digits(), replace(CLEAR, epochs=1))
    assert [each.epochs for each in made.trained] == [1, 1, 1]
    assert made.best.trial == 0 and made.tied == (1,)
    assert made.best.interval is not None and made.trained[2].interval is not None
    low, high = made.best.interval
    assert low < made.best.accuracy < high and made.trained[2].interval[1] < low
    assert made.best.interval == accuracy_interval(made.best.accuracy, 66)


def test_a_baseline_is_trained_as_the_winner_and_never_wins(tmp_path: Path) -> None:
    """The baseline is far wider than the students; it is trained once, with the tuned rate."""
    calls: list[Any] = []

    def baseline() -> nn.Module:
        return Width(32)

    def made(**how: Any) -> Any:
        return verify(students(1, 2), teacher(), space, digits(), CLEAR, baseline=baseline,
                      tune=["lr"], trials=3, storage=tmp_path, **how)  # fmt: skip

    first = made(on_trial=lambda *call: calls.append(call))
    assert first.baseline is not None and first.baseline.student is None
    assert first.baseline.accuracy > first.best.accuracy + 20
    assert first.baseline.epochs == first.best.epochs == 3
    assert first.baseline.changes == first.best.changes and first.best.changes["lr"] > 0
    assert first.baseline.interval == accuracy_interval(first.baseline.accuracy, 66)
    assert len(first.trained) == 3 and first.baseline not in first.trained
    assert calls[-1] == (3, 3, max(each.accuracy for each in first.trained if each.epochs == 3))
    json.dumps(first.as_dict())
    assert made(resume=True) == first


def test_a_baseline_that_fails_leaves_the_winner(monkeypatch: pytest.MonkeyPatch) -> None:
    def train(teacher: Any, student: Any, data: Any, recipe: Any, on_epoch: Any, **how: Any) -> Any:
        if len(student[0][0].weight) == 3:
            raise FloatingPointError("the loss is nan")
        on_epoch({"epoch": 1, "test_accuracy": 50.0})
        return SimpleNamespace(test_result=50.0)

    monkeypatch.setattr(module, "distill", train)
    made = verify(students(4), teacher(), space, digits(), RECIPE, baseline=lambda: Width(3))
    assert (made.best.accuracy, made.failed, made.baseline) == (50.0, 0, None)


def test_the_best_so_far_is_of_trainings_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a stopped training Optuna keeps an accuracy too, after fewer epochs."""
    after = {"first": [50.0, 40.0, 30.0], "second": [45.0]}

    def train(teacher: Any, student: Any, data: Any, recipe: Any, on_epoch: Any, **how: Any) -> Any:
        rows = after.pop(next(iter(after)))
        for epoch, accuracy in enumerate(rows, 1):
            on_epoch({"epoch": epoch, "test_accuracy": accuracy})
        return SimpleNamespace(test_result=rows[-1])

    monkeypatch.setattr(module, "distill", train)
    calls: list[Any] = []
    made = verify(students(1, 2), teacher(), space, digits(), RECIPE,
                  on_trial=lambda *call: calls.append(call))  # fmt: skip
    assert calls == [(0, 2, None), (1, 2, 30.0), (2, 2, 30.0)]
    assert [(each.accuracies, each.epochs) for each in made.trained] == [
        ((50.0, 40.0, 30.0), 3),
        ((45.0,), 1),
    ]


def test_students_of_a_verification_that_has_begun(tmp_path: Path) -> None:
    assert recorded_students(None, "verify") == [] == recorded_students(tmp_path, "verify")
    verify(students(4, 8), teacher(), space, digits(), replace(RECIPE, epochs=1), storage=tmp_path)
    assert recorded_students(tmp_path, "verify") == [{"width": 4}, {"width": 8}]
    assert recorded_students(tmp_path, "other") == []


def test_a_mean_average_precision_has_no_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no share of the images; neither are there students that tie."""
    after = [40.0, 39.9]

    def train(teacher: Any, student: Any, data: Any, recipe: Any, on_epoch: Any, **how: Any) -> Any:
        result = after.pop(0)
        on_epoch({"epoch": 1, "test_map": result, "test_map50": 70.0})
        return SimpleNamespace(test_result=result)

    monkeypatch.setattr(module, "distill", train)
    boxes = replace(digits(), task="detection")
    made = verify(students(32, 32), teacher(), space, boxes, replace(CLEAR, epochs=1))
    assert (made.measure, made.tied, made.best.accuracy) == ("mAP", (), 40.0)
    assert [each.interval for each in made.trained] == [None, None]


def test_same_call_same_outcome_and_test_images_do_not_matter() -> None:
    few = digits()
    assert few.test is not None
    blind = replace(few, test=replace(few.test, labels=torch.zeros_like(few.test.labels)))
    outcomes = [verify(students(4, 8), teacher(), space, each, RECIPE) for each in (few, blind)]
    assert outcomes[0] == outcomes[1]


def test_held_out_images_are_not_trained_on() -> None:
    held = held_out(digits())
    assert held.train is not None and held.test is not None and digits().train is not None
    parts = [whole(split)[0] for split in (held.train, held.test)]
    together = sorted(map(tuple, torch.cat(parts).flatten(1).tolist()))
    assert together == sorted(map(tuple, whole(digits().train)[0].flatten(1).tolist()))
    assert len(held.train) == 264 and len(held.test) == 66


def test_a_class_of_a_single_image_with_boxes_is_no_obstacle() -> None:
    data = replace(digits(), task="detection")
    assert data.train is not None
    labels = torch.zeros_like(data.train.labels)
    labels[7] = 1
    held = held_out(replace(data, train=replace(data.train, labels=labels)))
    assert held.train is not None and held.test is not None
    assert (len(held.train), len(held.test)) == (264, 66)


def test_tuned_with_the_architecture() -> None:
    recipe = replace(RECIPE, losses={"kd": 2.0, "relation": 1.0}, epochs=1)
    tune = ("temperature", "weights", "lr")
    made = verify(students(4, 8), teacher(), space, digits(), recipe, tune=tune, trials=6)
    assert len(made.trained) == 6
    by_trial = sorted(made.trained, key=lambda each: each.trial)
    for each, width in zip(by_trial[:2], (4, 8), strict=True):
        assert each.student.params == {"width": width}
        assert each.changes["losses"] == {"kd": 2.0, "relation": 1.0}
        assert (each.changes["temperature"], each.changes["lr"]) == (4.0, 0.2)
    rates = {each.changes["lr"] for each in by_trial}
    assert len(rates) == 5 and all(0.05 <= rate <= 0.8 for rate in rates)
    assert all(1 <= each.changes["temperature"] <= 16 for each in by_trial)
    assert all(0.2 <= each.changes["losses"]["kd"] <= 20 for each in by_trial)


def stop_after(trainings: int) -> Callable[[int, int, Any], None]:
    def on_trial(done: int, total: int, best: float | None) -> None:
        if done == trainings:
            raise KeyboardInterrupt

    return on_trial


def test_stopped_and_resumed_is_the_same(tmp_path: Path) -> None:
    given = (students(4, 1, 8), teacher(), space, digits(), RECIPE)
    straight = verify(*given)
    with pytest.raises(KeyboardInterrupt):
        verify(*given, storage=tmp_path, on_trial=stop_after(1))
    resumed = verify(*given, storage=tmp_path, resume=True)
    outcomes = [
        {t.student.trial: (t.accuracy, t.epochs, t.start) for t in each.trained}
        for each in (resumed, straight)
    ]
    assert outcomes[0] == outcomes[1]
    assert [outcomes[0][place][2]["from"] for place in range(3)] == ["teacher", "teacher", "fresh"]
    calls: list[Any] = []
    again = verify(*given, storage=tmp_path, resume=True, on_trial=lambda *c: calls.append(c))
    assert again == resumed and calls == [(3, 3, again.best.accuracy)]


def test_a_trial_that_a_killed_process_left_is_done_again(tmp_path: Path) -> None:
    given = (students(4, 8), teacher(), space, digits(), replace(RECIPE, epochs=1))
    with pytest.raises(KeyboardInterrupt):
        verify(*given, storage=tmp_path, on_trial=stop_after(0))
    study = optuna.load_study(study_name="verify", storage=open_storage(tmp_path))
    study.ask()
    made = verify(*given, storage=tmp_path, resume=True)
    assert sorted(each.student.trial for each in made.trained) == [0, 1]
    states = [trial.state for trial in study.get_trials()]
    assert states.count(TrialState.RUNNING) == 0 and states.count(TrialState.COMPLETE) == 2


def test_another_recipe_is_not_mixed_in(tmp_path: Path) -> None:
    given = (students(4), teacher(), space, digits())
    verify(*given, replace(RECIPE, epochs=1), storage=tmp_path)
    with pytest.raises(UserError, match="the verification to resume has epochs = 1, not 2"):
        verify(*given, replace(RECIPE, epochs=2), storage=tmp_path, resume=True)
    with pytest.raises(UserError, match="is here already"):
        verify(*given, replace(RECIPE, epochs=1), storage=tmp_path)


def test_a_verification_that_an_older_version_began(tmp_path: Path) -> None:
    """It stored recipes of fewer settings."""
    given = (students(4), teacher(), space, digits(), replace(RECIPE, epochs=1))
    first = verify(*given, storage=tmp_path)
    study = optuna.load_study(study_name="verify", storage=open_storage(tmp_path))
    facts = study.user_attrs["verify"]
    for name in ("optimizer", "warmup_epochs", "mixup", "cutmix", "randaugment"):
        del facts["recipe"][name]
    study.set_user_attr("verify", facts)
    assert verify(*given, storage=tmp_path, resume=True) == first


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[tuple[nn.Module, Recipe]]:
    """Each student as its training begins, and the recipe of the training."""
    kept: list[tuple[nn.Module, Recipe]] = []

    def train(teacher: Any, student: nn.Module, data: Dataset, recipe: Recipe, **how: Any) -> Any:
        kept.append((copy.deepcopy(student), recipe))
        return distill(teacher, student, data, recipe, **how)

    monkeypatch.setattr(module, "distill", train)
    return kept


def test_a_sub_network_starts_from_its_teacher(begun: list[tuple[nn.Module, Recipe]]) -> None:
    """Before any epoch it has what `inherit` gives it, and the accuracy of that."""
    master = distill(
        None, seeded(lambda: create_teacher("resnet20", CLASSES)), digits(),
        replace(SHORT, losses={}, epochs=3, batch_size=16),
    ).student  # fmt: skip
    subs = create_space("subnet:resnet20", CLASSES, 8)
    params = {f"depth_{n}": 2 for n in (1, 2, 3)} | {f"width_{n}": 1.0 for n in (1, 2, 3)}
    student = replace(students(1)[0], params=params)
    made = verify([student], master, subs, digits(), replace(RECIPE, epochs=1))

    held, expected = held_out(digits()), seeded(lambda: build_network(subs, params), 5)
    inherit(master, expected, augmented_batches(held, RECIPE))
    assert states_equal(begun[0][0], expected)
    asked = fresh(partial(build_network, subs, params), "default", RECIPE.seed)
    begin("teacher", Distillation(master, asked, held, RECIPE))  # as distill --start teacher
    assert states_equal(begun[0][0], asked)
    accuracies = [measure_result(each, held) for each in (begun[0][0], asked)]
    assert accuracies[0] == accuracies[1] > 30  # of five classes
    assert made.best.start == {"from": "teacher", "share": 1.0, "channels": "norm"}
    assert made.as_dict()["trained"][0]["start"] == made.best.start


def test_the_teacher_may_have_its_classes_in_another_order(
    begun: list[tuple[nn.Module, Recipe]],
) -> None:
    """The classifier that students inherit is in the order of the data's classes all the same."""
    order, master = [3, 0, 4, 1, 2], teacher()
    moved = copy.deepcopy(master)
    assert isinstance(moved, LinearHead)
    with torch.no_grad():
        moved.fc.weight.copy_(moved.fc.weight[order])
        moved.fc.bias.copy_(moved.fc.bias[order])
    short = replace(RECIPE, epochs=1)
    verify(students(4), master, space, digits(), short)
    verify(students(4), moved, space, digits(), short, teacher_classes=order)
    assert states_equal(begun[0][0], begun[1][0])


def test_a_student_that_the_teacher_does_not_fit_starts_fresh(
    begun: list[tuple[nn.Module, Recipe]],
) -> None:
    """The recipe follows the start: one is for random weights, one for those of the teacher."""
    cold = replace(RECIPE, epochs=1, lr=0.4)
    made = verify(students(32, 4), teacher(), space, digits(), replace(cold, lr=0.1),
                  fresh_recipe=cold, tune=["lr"], trials=2)  # fmt: skip
    wide, narrow = sorted(made.trained, key=lambda each: each.trial)
    assert wide.start == {"from": "fresh"} and narrow.start["from"] == "teacher"
    assert [recipe.lr for _, recipe in begun] == pytest.approx([0.4, 0.1])
    assert [each.changes["lr"] for each in (wide, narrow)] == pytest.approx([0.4, 0.1])
    assert states_equal(begun[0][0], fresh(lambda: Width(32), "default", RECIPE.seed))


def test_a_verification_that_began_with_random_weights_keeps_to_them(
    tmp_path: Path, begun: list[tuple[nn.Module, Recipe]]
) -> None:
    """Version 0.1.0 recorded no start, and had one recipe."""
    given = (students(4, 6), teacher(), space, digits(), replace(RECIPE, epochs=1))
    with pytest.raises(KeyboardInterrupt):
        verify(*given, storage=tmp_path, on_trial=stop_after(0))
    study = optuna.load_study(study_name="verify", storage=open_storage(tmp_path))
    facts = study.user_attrs["verify"]
    assert facts.pop("inherits") and facts.pop("fresh_recipe")
    study.set_user_attr("verify", facts)
    cold = replace(RECIPE, epochs=1, lr=0.4)
    made = verify(*given, fresh_recipe=cold, storage=tmp_path, resume=True)
    assert [each.start for each in made.trained] == [{"from": "fresh"}] * 2
    assert states_equal(begun[0][0], fresh(lambda: Width(4), "default", RECIPE.seed))
    assert [recipe for _, recipe in begun] == [given[-1]] * 2


def test_trainings_that_fail_are_counted() -> None:
    made = verify(students(4), teacher(), space, digits(), replace(RECIPE, epochs=1))
    assert made.failed == 0
    wild = replace(RECIPE, epochs=1, lr=1e8)
    with pytest.raises(SearchFailed, match=r"no student could be verified; 1 failed, such as"):
        verify(students(4), teacher(), space, digits(), wild)


def test_a_training_that_raises_anything_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def train(teacher: nn.Module, student: nn.Module, *given: Any, **how: Any) -> Any:
        if student[-1].in_features == 6:
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")
        return distill(teacher, student, *given, **how)

    monkeypatch.setattr(module, "distill", train)
    given = teacher(), space, digits(), replace(RECIPE, epochs=1)
    made = verify(students(6, 4), *given)
    assert made.failed == 1 and [each.student.trial for each in made.trained] == [1]
    with pytest.raises(SearchFailed, match=r"OutOfMemoryError: CUDA out of memory. Tried to all"):
        verify(students(6), *given)


def test_a_process_that_joins_leaves_the_running_trial_of_another(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/studies.db"
    given = (students(4, 8), teacher(), space, digits(), replace(RECIPE, epochs=1))
    with pytest.raises(KeyboardInterrupt):
        verify(*given, storage=url, on_trial=stop_after(0))
    study = optuna.load_study(study_name="verify", storage=url)
    other = study.ask()
    made = verify(*given, storage=url, resume=True)
    assert sorted(each.student.trial for each in made.trained) == [0, 1]
    study.tell(other, 50.0)


def test_refused() -> None:
    few = digits()
    with pytest.raises(UserError, match="unknown setting to tune 'temprature'; did you mean"):
        verify(students(4), teacher(), space, few, RECIPE, tune=["temprature"])
    with pytest.raises(UserError, match="has no images to train on"):
        verify(students(4), teacher(), space, replace(few, train=None), RECIPE)


def test_the_teacher_is_left_as_it_was() -> None:
    master = seeded(LinearHead).train()
    before = {name: value.clone() for name, value in master.state_dict().items()}
    verify(students(4), master, space, digits(), replace(RECIPE, epochs=1))
    assert master.training
    assert all(torch.equal(before[name], value) for name, value in master.state_dict().items())
