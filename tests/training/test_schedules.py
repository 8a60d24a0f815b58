"""Learning rates over a training."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diswot.training.recipe import Recipe
from diswot.training.schedules import SCHEDULES, START, WARM_UP, Drops, cosine, onecycle, step

quick = settings(derandomize=True, deadline=None, max_examples=50, database=None)
DROPS = Drops((0.25, 0.5), 0.1)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
@quick
@given(done=st.floats(0, 1))
def test_schedules_stay_between_zero_and_the_highest(name: str, done: float) -> None:
    assert 0 <= SCHEDULES[name](done, DROPS) <= 1


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
    for batch in range(40):
        assert theirs.get_last_lr()[0] == pytest.approx(cosine(batch / 40), abs=1e-9)
        optimizer.step()
        theirs.step()


def test_onecycle_is_torchs_to_a_step() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    steps = 1000
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1.0, total_steps=steps, cycle_momentum=False
    )
    for batch in range(steps):
        assert theirs.get_last_lr()[0] == pytest.approx(onecycle(batch / steps), abs=0.01)
        if batch + 1 < steps:
            optimizer.step()
            theirs.step()


def test_step_is_torchs() -> None:
    """Also where a milestone's share of the training is no binary fraction."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    theirs = torch.optim.lr_scheduler.MultiStepLR(optimizer, [7, 11, 23], 0.1)
    recipe = Recipe(epochs=29, lr=0.3, schedule="step", milestones=(7, 11, 23), decay=0.1)
    for epoch in range(29):
        for batch in (0, 6):
            done = (7 * epoch + batch) / (7 * 29)
            assert theirs.get_last_lr()[0] == pytest.approx(recipe.rate(done))
        optimizer.step()
        theirs.step()


def test_step_without_drops() -> None:
    assert step(0.9) == 1 and step(0.3, DROPS) == 0.1
