"""Settings of a training."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diswot.errors import UserError
from diswot.knowledge import KNOWLEDGE
from diswot.recipe import SCHEDULES, START, WARM_UP, Recipe, cosine, onecycle, parse_losses

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
        ({"schedule": "step"}, "unknown schedule 'step'"),
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
    ],
)
def test_parse_losses_refuses(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_losses(text)


@quick
@given(st.dictionaries(st.sampled_from(sorted(KNOWLEDGE)), st.floats(0, 1e6), min_size=1))
def test_losses_read_back(losses: dict[str, float]) -> None:
    assert parse_losses(",".join(f"{name}:{w!r}" for name, w in losses.items())) == losses


@pytest.mark.parametrize("name", sorted(SCHEDULES))
@quick
@given(done=st.floats(0, 1))
def test_schedules_stay_between_zero_and_the_highest(name: str, done: float) -> None:
    assert 0 <= SCHEDULES[name](done) <= 1


def test_schedules_at_their_ends() -> None:
    assert cosine(0) == 1 and cosine(0.5) == pytest.approx(0.5) and cosine(1) == 0
    assert onecycle(0) == START and onecycle(WARM_UP) == 1 and onecycle(1) == 0
    assert onecycle(WARM_UP - 1e-9) == pytest.approx(1)
    rising = [onecycle(WARM_UP * i / 100) for i in range(101)]
    falling = [onecycle(WARM_UP + (1 - WARM_UP) * i / 100) for i in range(101)]
    assert rising == sorted(rising) and falling == sorted(falling, reverse=True)


def test_cosine_is_torchs() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40)
    for step in range(40):
        assert theirs.get_last_lr()[0] == pytest.approx(cosine(step / 40), abs=1e-9)
        optimizer.step()
        theirs.step()


def test_onecycle_is_torchs_to_a_step() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    steps = 1000
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1.0, total_steps=steps, cycle_momentum=False
    )
    for step in range(steps):
        assert theirs.get_last_lr()[0] == pytest.approx(onecycle(step / steps), abs=0.01)
        if step + 1 < steps:
            optimizer.step()
            theirs.step()
