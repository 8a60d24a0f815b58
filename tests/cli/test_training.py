"""What the commands that train share."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from toys import ClassToken, LinearHead, seeded

from diswot.cli import main
from diswot.cli.training import default_line, main_process
from diswot.cli.training import recipe as recipe_of
from diswot.cli.training_options import TrainingOptions
from diswot.errors import UserError
from diswot.training.progress import TrainingProgress
from diswot.training.recipe import Recipe
from diswot.training.recipe_files import load_recipe

GIVEN: dict[str, Any] = {"epochs": 20, "lr": None, "losses": "kd:2"}


def recipe(name: str | None, given: dict[str, Any], data: str = "cifar10", **how: Any) -> Recipe:
    return recipe_of(TrainingOptions(recipe=name, **given), data, **how)


class TestRecipe:
    def test_without_a_name_the_student_and_the_epochs_choose(self) -> None:
        transformer = seeded(ClassToken)
        for student, epochs, name in (
            (None, 20, "short"),
            (seeded(LinearHead), 20, "short"),
            (seeded(LinearHead), 21, "plain"),
            (seeded(LinearHead), None, "plain"),
            (transformer, 20, "transformer"),
        ):
            given = {**GIVEN, "epochs": epochs}
            made = recipe(None, given, alone=False, student=student)
            changes = {"losses": {"kd": 2.0}, **({"epochs": epochs} if epochs else {})}
            assert made == load_recipe(name, **changes)
            line = default_line(student, made)
            assert line.startswith(f"recipe {name}: {epochs or 240} epochs, ")

    def test_a_name_wins(self) -> None:
        for name in ("plain", "cifar"):
            made = recipe(name, {"epochs": 3}, alone=False, student=seeded(ClassToken))
            assert made == load_recipe(name, epochs=3)

    def test_the_recorded_recipe_wins_over_the_default(self) -> None:
        before = load_recipe("cifar", epochs=10, losses={"at": 2.0}, cross_entropy=0.5)
        record = {**before.as_dict(), "data": "digits", "start": "fresh"}
        assert recipe(None, {}, alone=False, record=record) == before
        given = {"epochs": 10, "losses": "at:2"}
        assert recipe(None, given, alone=False, record=record) == before
        old = {name: record[name] for name in ("epochs", "lr", "schedule", "milestones")}
        made = recipe(None, {"lr": 0.3}, alone=False, record=old)
        assert made == Recipe(epochs=10, lr=0.3, schedule="step", milestones=before.milestones)
        assert recipe("plain", {}, alone=False, record=record) == load_recipe("plain")

    def test_alone_there_are_no_losses(self) -> None:
        assert recipe("cifar", {}, alone=True).losses == {}
        made = recipe(None, {"epochs": 2}, alone=True, fresh=True)
        assert (made.losses, made.cross_entropy, made.lr) == ({}, 1, 0.1)
        with pytest.raises(UserError, match="has a use for --losses; leave it out"):
            recipe(None, GIVEN, alone=True)

    def test_digits_are_mirrored_on_request(self) -> None:
        assert recipe(None, {}, alone=False).flip
        assert not recipe(None, {}, "digits", alone=False).flip
        assert recipe(None, {"flip": True}, "digits", alone=False).flip
        record = Recipe().as_dict()
        assert recipe(None, {}, "digits", alone=False, record=record).flip

    def test_milestones_are_read(self) -> None:
        made = recipe(None, {"schedule": "step", "milestones": "3,4.5"}, alone=False)
        assert made.milestones == (3, 4.5)
        with pytest.raises(UserError, match="milestones are epochs with commas, not '3;4'"):
            recipe(None, {"milestones": "3;4"}, alone=False)


def test_the_bar_shows_the_epoch_its_rate_and_what_the_last_one_came_to() -> None:
    calls: list[Any] = []
    begun: list[str] = []
    recipe = Recipe(epochs=2, batch_size=10)
    lines: list[Any] = []

    def advance(*call: Any, line: bool = False) -> None:
        (lines if line else calls).append(call)

    shown = TrainingProgress(advance, recipe, lambda: begun.append("said"))
    row = {"epoch": 1, "loss": 1.23456, "test_accuracy": 12.346, "images_per_second": 99.6}
    shown.on_step(1, 4, {})
    shown.on_step(2, 4, {})
    shown.on_epoch(row)
    shown.on_step(3, 4, row)
    assert begun == ["said"]
    assert [call[:3] for call in calls] == [("training", step, 4) for step in (1, 2, 3)]
    assert calls[0][3] == "epoch 1 of 2"
    assert re.fullmatch(r"epoch 1 of 2, \d+ images/s", calls[1][3])
    assert calls[2][3] == "epoch 2 of 2, loss 1.235, test 12.35 %"
    assert lines == [("training", 2, 4, "epoch 1 of 2, loss 1.235, test 12.35 %, 100 images/s")]


def test_one_process_of_several_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    assert main_process()
    monkeypatch.setenv("RANK", "1")
    assert not main_process()


def test_a_resumed_training_has_the_recipe_that_the_same_command_began_it_with() -> None:
    for given in ({"recipe": "fast"}, {"seed": 3}, {}):
        options = TrainingOptions(**given)
        begun = recipe_of(options, "digits", alone=False)
        record = begun.as_dict()
        assert not begun.flip
        for again in (options, TrainingOptions()):
            assert recipe_of(again, "digits", alone=False, record=record) == begun


def test_memory_of_a_device_that_is_full_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cpu = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")
    for error in (cpu, torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("a bug")):

        def functions_of(file: str, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr("diswot.cli.names.functions_of", functions_of)
        kind = RuntimeError if "bug" in str(error) else SystemExit
        with pytest.raises(kind) as left:
            main(["list", "--file", "own.py"])
        if kind is SystemExit:
            assert left.value.code == 1
            assert capsys.readouterr().err.startswith("diswot: out of memory; ask for")
