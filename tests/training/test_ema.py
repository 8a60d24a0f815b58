"""Averaged weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_training import SHORT, at_step, curve, digits, distill, interrupt, states_equal
from toys import LinearHead, seeded

from diswot.data.dataset import whole
from diswot.training.checkpoint import CHECKPOINT, WEIGHTS
from diswot.training.ema import Average
from diswot.training.evaluation import accuracy

RECIPE = replace(SHORT, ema=0.9)


def test_by_hand() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(model.weight, 0)
    average = Average(model, 0.5)
    told = []
    for value in (1.0, 1.0, 3.0, 5.0, 7.0, 9.0):
        torch.nn.init.constant_(model.weight, value)
        average.follow(model)
        told.append(float(average.model.weight.detach()))
    expected, mean = [], 0.0
    for step, value in enumerate((1.0, 1.0, 3.0, 5.0, 7.0, 9.0)):
        decay = min(0.5, (1 + step) / (10 + step))
        mean = decay * mean + (1 - decay) * value
        expected.append(mean)
    assert told == pytest.approx(expected) and told[0] == pytest.approx(0.9)


def test_statistics_follow_and_counts_are_copied() -> None:
    model = seeded(LinearHead).train()
    average = Average(model, 0.9)
    model(torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    before = average.model.block1[1].running_mean.clone()
    average.follow(model)
    norm, ours = model.block1[1], average.model.block1[1]
    assert int(ours.num_batches_tracked) == int(norm.num_batches_tracked) == 1
    assert torch.allclose(ours.running_mean, 0.1 * before + 0.9 * norm.running_mean)
    assert not average.model.training and not any(p.requires_grad for p in average.parameters())


def test_it_is_what_is_tested_and_kept(tmp_path: Path) -> None:
    plain = distill(seeded(LinearHead), None, digits(), SHORT)
    made = distill(seeded(LinearHead), None, digits(), RECIPE, out=tmp_path)
    assert [r["loss"] for r in curve(plain)] == [r["loss"] for r in curve(made)]
    assert not states_equal(plain.student, made.student)
    fresh = seeded(LinearHead, 3)
    fresh.load_state_dict(load_file(tmp_path / WEIGHTS))
    assert digits().test is not None
    assert accuracy(fresh, digits(), whole(digits().test)) == made.test_accuracy


def test_resumed(tmp_path: Path) -> None:
    straight = distill(seeded(LinearHead), None, digits(), RECIPE)
    with pytest.raises(KeyboardInterrupt):
        stop = at_step(15, interrupt)
        distill(seeded(LinearHead), None, digits(), RECIPE, out=tmp_path, on_step=stop)
    resumed = distill(seeded(LinearHead), None, digits(), RECIPE, out=tmp_path, resume=True)
    assert curve(resumed) == curve(straight) and states_equal(resumed.student, straight.student)
    kept = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert int(kept["average"]["steps"]) == 20
    again = distill(seeded(LinearHead, 5), None, digits(), RECIPE, out=tmp_path, resume=True)
    assert states_equal(again.student, straight.student)
