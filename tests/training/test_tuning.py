"""Settings of a recipe that are searched with the students."""

from __future__ import annotations

from dataclasses import replace

import pytest
from optuna.trial import FixedTrial

from diswot.errors import UserError
from diswot.training.recipe import Recipe
from diswot.training.tuning import TUNED, check_tuned, suggested, untuned

RECIPE = Recipe(epochs=1, lr=0.4, losses={"kd": 3.0, "relation": 0.0}, temperature=4.0)


def test_the_given_recipe_is_among_those_that_are_suggested() -> None:
    plain = untuned(RECIPE, list(TUNED))
    assert plain == {"temperature": 4.0, "lr": 0.4, "weight_kd": 3.0}
    assert replace(RECIPE, **suggested(FixedTrial(plain), RECIPE, list(TUNED))) == RECIPE


def test_what_a_trial_suggests() -> None:
    trial = FixedTrial({"lr": 0.1, "weight_kd": 30.0})
    assert suggested(trial, RECIPE, ["lr", "weights"]) == {
        "lr": 0.1,
        "losses": {"kd": 30.0, "relation": 0.0},
    }
    assert suggested(trial, RECIPE, []) == {}


def test_refused() -> None:
    with pytest.raises(UserError, match="unknown setting to tune 'temprature'; did you mean"):
        check_tuned(RECIPE, ["temprature"])
    relation = Recipe(losses={"relation": 1.0})
    with pytest.raises(UserError, match="no loss has a temperature to tune"):
        check_tuned(relation, ["temperature"])
    check_tuned(relation, ["lr", "weights"])
