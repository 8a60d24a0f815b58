"""Settings of a training."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diswot.errors import UserError
from diswot.knowledge.registry import KNOWLEDGE
from diswot.training.recipe import PRESETS, Recipe, parse_losses, published_settings

quick = settings(derandomize=True, deadline=None, max_examples=50, database=None)


def test_defaults_are_valid() -> None:
    assert Recipe().losses == {"kd": 1.0}
    assert Recipe().losses is not Recipe().losses


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, not 0"),
        ({"epochs": -3}, "epochs must be at least 1, not -3"),
        ({"batch_size": 1}, "batch_size must be at least 2, not 1"),
        ({"crop": -1}, "crop must be at least 0, not -1"),
        ({"seed": -1}, "seed must be at least 0, not -1"),
        ({"lr": 0.0}, "lr must be above 0 and below 1e+09, not 0.0"),
        ({"lr": -0.1}, "lr must be above 0 and below 1e+09, not -0.1"),
        ({"lr": math.nan}, "lr must be above 0 and below 1e+09, not nan"),
        ({"lr": 1e40}, "lr must be above 0 and below 1e+09, not 1e+40"),
        ({"lr": math.inf}, "lr must be above 0 and below 1e+09, not inf"),
        ({"momentum": 1.0}, "momentum must be at least 0 and below 1, not 1.0"),
        ({"momentum": math.nan}, "momentum must be at least 0 and below 1, not nan"),
        ({"weight_decay": -1.0}, "weight_decay must be at least 0 and below 1e+09, not -1.0"),
        ({"cross_entropy": -1.0}, "cross_entropy must be at least 0"),
        ({"cross_entropy": math.inf}, "cross_entropy must be at least 0 and below 1e+09"),
        ({"losses": {"kd": math.nan}}, "kd must be at least 0 and below 1e+09, not nan"),
        ({"losses": {"relation": -2.0}}, "relation must be at least 0"),
        ({"losses": {"kdd": 1.0}}, "unknown knowledge distance 'kdd'; did you mean"),
        ({"schedule": "cosin"}, "unknown schedule 'cosin'; did you mean cosine"),
        ({"schedule": "step"}, "milestones belong to the schedule step, and it needs some"),
        ({"milestones": (3,)}, "milestones belong to the schedule step"),
        ({"schedule": "step", "milestones": (5, 5)}, "that rise from above 0, not 5, 5"),
        ({"schedule": "step", "milestones": (0, 5)}, "that rise from above 0, not 0, 5"),
        ({"schedule": "step", "milestones": (math.nan,)}, "that rise from above 0, not nan"),
        ({"views": 0}, "views must be 1 or 2, not 0"),
        ({"views": 3}, "views must be 1 or 2, not 3"),
        ({"views": 2, "crop": 0, "flip": False}, "the same unless images are altered"),
        ({"accumulate": 0}, "accumulate must be at least 1, not 0"),
        ({"cutout": -1}, "cutout must be at least 0, not -1"),
        ({"clip_grad": -1.0}, "clip_grad must be at least 0 and below 1e+09, not -1.0"),
        ({"ema": 1.0}, "ema must be at least 0 and below 1, not 1.0"),
        ({"label_smoothing": math.nan}, "label_smoothing must be at least 0 and below 1, not nan"),
        ({"area": 0.0}, "area must be above 0, at most 1, not 0.0"),
        ({"decay": 1.5}, "decay must be above 0, at most 1, not 1.5"),
        ({"temperature": 0.0}, "temperature must be above 0, below 1e+09, not 0.0"),
        ({"temperature": 4.0, "losses": {"relation": 1.0}}, "no temperature in relation"),
        ({"cache": True}, "cache needs images as they are: crop 0, area 1, no flip, cutout 0"),
        ({"compile": True, "losses": {"kd": 1.0, "at": 1.0}}, "compile needs losses of outputs"),
        ({"cache": True, "crop": 0, "flip": False, "mixup": 0.1}, "cache needs images as they are"),
        ({"optimizer": "adam"}, "unknown optimizer 'adam'; did you mean adamw"),
        ({"warmup_epochs": -1.0}, "warmup_epochs must be at least 0 and below 1e+09, not -1.0"),
        ({"ramp_epochs": -1.0}, "ramp_epochs must be at least 0 and below 1e+09, not -1.0"),
        ({"warmup_epochs": 240}, "warmup_epochs must be fewer than epochs, not 240 of 240 epochs"),
        ({"warmup_epochs": 1, "schedule": "onecycle"}, "0 for the schedule onecycle, which warms"),
        ({"mixup": math.nan}, "mixup must be at least 0 and below 1e+09, not nan"),
        ({"cutmix": -1.0}, "cutmix must be at least 0 and below 1e+09, not -1.0"),
        ({"randaugment": -1}, "randaugment must be at least 0, not -1"),
        ({"randaugment": 31}, "randaugment must be at most 30, not 31"),
        ({"losses": ["kd"]}, "losses must be weights by name, such as {'kd': 0.9}, not a list"),
        ({"precision": "fp23"}, "unknown precision 'fp23'; did you mean fp32"),
    ],
)
def test_impossible_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        Recipe(**settings)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "losses"),
    [
        ("kd", {"kd": 1.0}),
        ("kd:", {"kd": 1.0}),
        ("kd:0.9,relation:1", {"kd": 0.9, "relation": 1.0}),
        (" kd : 2 , semantic ,", {"kd": 2.0, "semantic": 1.0}),
        ("kd:1e-3", {"kd": 0.001}),
        ("kd:0", {"kd": 0.0}),
    ],
)
def test_parse_losses(text: str, losses: dict[str, float]) -> None:
    assert parse_losses(text) == losses


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kd:x", "'x' is no weight for kd"),
        ("kd:1:2", "'1:2' is no weight for kd"),
        ("kd:1,kd:2", "kd is weighted twice"),
        ("semantics:1", "did you mean semantic"),
        ("", "no loss is named"),
        (" , ", "no loss is named"),
        ("at:published", "no weight of at is published on its scale here, but of kd, kd_stand"),
        ("diswot:published", "no weight of diswot is published"),
        ("kd:Published", "'Published' is no weight for kd"),
    ],
)
def test_parse_losses_refuses(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_losses(text)


def test_published_weights_bring_their_settings() -> None:
    assert parse_losses("kd:published,at:3") == {"kd": 0.9, "at": 3.0}
    assert published_settings("kd:published,at:3", 240) == {"cross_entropy": 0.1, "ramp_epochs": 0}
    assert published_settings("dkd:published", 240) == {"cross_entropy": 1, "ramp_epochs": 20}
    assert published_settings("wttm:published,dkd : published", 12) == {
        "cross_entropy": 1, "ramp_epochs": 1,
    }  # fmt: skip
    assert published_settings("kd:0.9,dkd", 240) == {}
    with pytest.raises(UserError, match="cross-entropy differ in 'kd:published,dkd:published'"):
        published_settings("kd:published,dkd:published", 240)


@quick
@given(st.dictionaries(st.sampled_from(sorted(KNOWLEDGE)), st.floats(0, 1e6), min_size=1))
def test_losses_read_back(losses: dict[str, float]) -> None:
    assert parse_losses(",".join(f"{name}:{w!r}" for name, w in losses.items())) == losses


def test_presets() -> None:
    assert parse_losses("diswot") == {"kd": 1.0, "semantic": 1.0, "relation": 3000.0}
    assert parse_losses("diswot_class:0.5,at:2") == {
        "kd": 0.5, "semantic_class": 0.5, "relation": 1500.0, "at": 2.0,
    }  # fmt: skip
    assert all(parse_losses(name) == parts for name, parts in PRESETS.items())
    with pytest.raises(UserError, match="kd is weighted twice"):
        parse_losses("diswot,kd")


def test_as_dict_makes_the_same_again() -> None:
    made = Recipe(schedule="step", milestones=(1, 2), losses={"at": 2.0}, ema=0.5)
    again = made.as_dict() | {"milestones": (1, 2)}
    assert Recipe(**again) == made
