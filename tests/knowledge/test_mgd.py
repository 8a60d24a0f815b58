from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from knowledge.made import made
from torch import nn

from diswot.knowledge.features import fitnet
from diswot.knowledge.losses import Losses
from diswot.knowledge.mgd import MASKED, Generators, mgd


def test_without_generators_it_is_the_mean_squared_difference() -> None:
    assert float(mgd(made(0), made(1))) == pytest.approx(float(fitnet(made(0), made(1))))


def test_by_hand_with_a_generator_that_doubles() -> None:
    one, other = torch.tensor([[[[1.0, 3.0]]]]), torch.tensor([[[[2.0, 5.0]]]])
    teacher, student = replace(made(0), stages=(one,)), replace(made(0), stages=(other,))
    found = mgd(teacher, student, [lambda maps: 2 * maps])
    assert float(found) == pytest.approx(((1 - 4) ** 2 + (3 - 10) ** 2) / 2)


def test_whole_positions_are_masked_at_the_share_of_the_paper() -> None:
    maps = torch.ones(4, 3, 40, 40)
    seen = replace(made(0), stages=(maps,))
    (generate,) = Generators(seen)()["generators"]
    generate.generator = nn.Identity()
    torch.manual_seed(0)
    masked = generate(maps)
    assert torch.equal(masked[:, 0], masked[:, 1]) and torch.equal(masked[:, 0], masked[:, 2])
    assert float((masked == 0).float().mean()) == pytest.approx(MASKED, abs=0.02)
    assert not torch.equal(masked, generate(maps))


def test_generators_are_learned_and_draw_no_random_number_of_the_training() -> None:
    teacher, student = made(0), made(1)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    losses = Losses({"mgd": 1.0}, teacher, student)
    assert torch.equal(torch.get_rng_state(), before)
    optimiser = torch.optim.Adam(losses.parameters(), 0.01)
    values = []
    for _ in range(60):
        optimiser.zero_grad()
        loss = losses(teacher, student)["mgd"]
        loss.backward()
        optimiser.step()
        values.append(float(loss.detach()))
    assert sum(values[-10:]) < 0.8 * sum(values[:10])
