"""What the commands that train share."""

from __future__ import annotations

from typing import Any

import pytest
from toys import ClassToken, LinearHead, seeded

from diswot.cli.training import main_process, recipe, shown
from diswot.errors import UserError
from diswot.training.recipe import Recipe
from diswot.training.recipe_files import load_recipe

GIVEN: dict[str, Any] = {"epochs": 20, "lr": None, "losses": "kd:2"}


class TestRecipe:
    def test_without_a_name_the_student_chooses(self) -> None:
        changed = {"epochs": 20, "losses": {"kd": 2.0}}
        assert recipe(None, GIVEN, alone=False) == Recipe(**changed)
        convolutions, transformer = seeded(LinearHead), seeded(ClassToken)
        assert recipe(None, GIVEN, alone=False, student=convolutions) == Recipe(**changed)
        expected = load_recipe("transformer", **changed)
        assert recipe(None, GIVEN, alone=False, student=transformer) == expected
        assert expected.optimizer == "adamw" and expected.warmup_epochs == 1

    def test_a_name_wins(self) -> None:
        for name in ("plain", "cifar"):
            made = recipe(name, {}, alone=False, student=seeded(ClassToken))
            assert made == load_recipe(name)

    def test_alone_there_are_no_losses(self) -> None:
        assert recipe("cifar", {}, alone=True).losses == {}
        with pytest.raises(UserError, match="has a use for --losses; leave it out"):
            recipe(None, GIVEN, alone=True)

    def test_milestones_are_read(self) -> None:
        made = recipe(None, {"schedule": "step", "milestones": "3,4.5"}, alone=False)
        assert made.milestones == (3, 4.5)
        with pytest.raises(UserError, match="milestones are epochs with commas, not '3;4'"):
            recipe(None, {"milestones": "3;4"}, alone=False)


def test_the_bar_shows_the_last_accuracy_and_the_rate_of_this_epoch() -> None:
    calls: list[Any] = []
    on_step = shown(lambda *call: calls.append(call), Recipe(epochs=2, batch_size=10))
    for step, row in ((1, {}), (2, {}), (3, {"test_accuracy": 12.345})):
        on_step(step, 4, row)
    assert [call[:3] for call in calls] == [("training", step, 4) for step in (1, 2, 3)]
    assert calls[0][3] == "" and calls[1][3].endswith("images/s")
    assert calls[2][3] == "test 12.35 %" or calls[2][3] == "test 12.34 %"


def test_one_process_of_several_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    assert main_process()
    monkeypatch.setenv("RANK", "1")
    assert not main_process()
