"""The benchmark of sub-networks: what it picks by hand, and what it says of its tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import kl_div

from diswot.costs.budget import Budget

POSITIONS = 32 * 32


@pytest.fixture
def picks(imported: Callable[[str], Any]) -> Any:
    return imported("subnet_picks")


@pytest.fixture
def script(imported: Callable[[str], Any]) -> Any:
    return imported("subnets")


def macs(depths: tuple[int, int, int], width: float) -> int:
    """Multiply-adds of a sub-network of one width, layer by layer."""
    total, inputs, positions = 3 * 64 * 9 * POSITIONS, 64, POSITIONS
    for stage, (depth, full) in enumerate(zip(depths, (16, 32, 64), strict=True)):
        outputs = int(width * full)
        positions //= 4 if stage else 1
        first = 10 * inputs * outputs + 9 * outputs**2  # with the 1 x 1 shortcut
        total += positions * (first + (depth - 1) * 18 * outputs**2)
        inputs = outputs
    return total + 4 * inputs * 100


def test_costs_are_those_of_the_layers(picks: Any) -> None:
    for depths, width in (((5, 5, 5), 1.0), ((2, 3, 4), 0.5)):
        assert picks.costs(picks.uniform(depths, width))["macs"] == macs(depths, width)


@pytest.mark.parametrize(
    "limit, wide",
    [
        # two blocks a stage fit at full width
        (macs((2, 2, 2), 1.0), ((2, 2, 2), 1.0)),
        (macs((2, 2, 2), 1.0) - 1, ((1, 2, 2), 1.0)),
        # not even one block of full width fits
        (macs((1, 1, 1), 1.0) - 1, None),
    ],
)
def test_the_two_widest_by_hand(picks: Any, limit: int, wide: Any) -> None:
    picked = picks.by_hand(Budget(max_macs=limit))
    found = [tuple(picked[name].values()) for name in ("wide", "narrow")]
    even = [(a, b, c) for a in range(1, 6) for b in range(a, 6) for c in range(b, 6) if c - a <= 1]
    fitting = {
        width: max((macs(depths, width), depths) for depths in even if macs(depths, width) <= limit)
        for width in (1.0, 0.75, 0.5, 0.25)
        if macs((1, 1, 1), width) <= limit
    }
    expected = [(*depths, width, width, width, 1.0) for width, (_, depths) in fitting.items()]
    assert found == expected[:2]
    if wide is not None:
        assert found[0] == (*wide[0], *(3 * (wide[1],)), 1.0)


def test_what_two_ways_pick_is_trained_once(
    picks: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("PICKED", "FOUND"):
        monkeypatch.setattr(picks, name, tmp_path / f"{name}.csv")
    one, other = picks.uniform((1, 1, 1), 0.5), picks.uniform((1, 2, 1), 0.5)
    for budget, pick, params in (
        ("half", "agreement", one),
        ("half", "wide", one),
        ("half", "narrow", other),
        ("resnet20", "agreement", one),
    ):
        picks.append(picks.PICKED, {"budget": budget, "pick": pick, **params})
    trained = []

    class School:
        def train(self, build: Any, training: Any) -> dict[str, str]:
            trained.append((training.epochs, training.seed))
            return {"epoch1": "50.00", "before": "10.00"}

    for only in (("half/wide",), ("wide", "agreement"), ()):
        picks.train_picks(School(), 2, 3, only)
    assert trained == [(3, 0), (3, 1), (5, 0), (5, 1), (3, 0), (3, 1)]
    rows = picks.lines(picks.FOUND)
    assert [row["depth_2"] for row in rows] == ["1", "1", "1", "1", "2", "2"]
    assert rows[0]["epoch1"] == "50.00" and rows[0]["epoch5"] == ""


def test_a_perfect_score_has_tau_one(
    script: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("TABLE", "SCORED"):
        monkeypatch.setattr(script, name, tmp_path / f"{name}.csv")
    for number, after in enumerate((10.0, 30.0, 20.0, 40.0)):
        script.append(
            script.TABLE,
            {"number": number, "model_params": 100 - number, "before": after / 2, "epoch1": after},
        )
        scores = dict.fromkeys(script.PROXIES, "")
        given = {
            "agreement": after - 50,
            "kd": -after,
            "kd_standardised": -after,
            "default": "" if number else "1",
        }
        key = {"number": number, "weights": "inherited", "images": 64, "seed": 0}
        script.append(script.SCORED, key | scores | given)
    found = script.columns_of(0, 64, "inherited").ranked.rankings
    taus = {name: row.statistics["kendall"].value for name, row in found.items()}
    assert taus["agreement"] == taus["before"] == 1 and taus["kd"] == -1
    assert found["default"].n == 1 and "zen" not in found


@pytest.fixture
def agreements(imported: Callable[[str], Any]) -> Any:
    return imported("agreements")


def test_the_divergence_is_that_of_torch(agreements: Any) -> None:
    teacher, student = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    expected = kl_div(student.log_softmax(1), teacher.softmax(1), reduction="batchmean")
    assert agreements.divergence(teacher, student) == pytest.approx(float(expected))
    assert agreements.standard(3 * teacher + 2) == pytest.approx(agreements.standard(teacher))


def test_a_new_classifier_finds_logits_that_are_linear_in_the_features(agreements: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(40, 3, generator=generator)
    logits = features @ torch.randn(3, 4, generator=generator) + 7
    assert agreements.refitted(features, logits, 1e-6) == pytest.approx(logits, abs=1e-3)
    spoiled = logits.clone()
    spoiled[:20] += 100  # the first half is predicted from the second alone
    kept = agreements.refitted(features, spoiled, 1e-6)[:20]
    assert kept == pytest.approx(logits[:20], abs=1e-3)
