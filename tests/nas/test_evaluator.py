"""What becomes of one candidate, with the driver's answers and the costs by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from optuna.distributions import IntDistribution
from optuna.trial import BaseTrial
from torch import nn
from toyspaces import Marked, batch, teacher

from diswot.costs.budget import Budget
from diswot.errors import SearchFailed
from diswot.nas import evaluator as module
from diswot.nas.evaluator import Alone, Asked, Examiner, Setup, failed, work
from diswot.proxies.registry import PROXIES
from diswot.proxies.scorer import NotScored
from diswot.spaces.validation import Build

CLASSES = 5


def sized(trial: BaseTrial) -> nn.Module:
    """One layer of 5 x size weights and so many multiply-adds."""
    return Marked("", trial.suggest_int("size", 1, 4))


@dataclass
class Driver:
    """Answers from a table, and keeps what it was asked."""

    size: Any = 2
    before: Any = None
    latency: float = 0.25
    asked: list[str] = field(default_factory=list)

    def __call__(self, question: Any) -> Any:
        what, *about = question
        self.asked.append(what)
        if what == "suggest":
            assert about == ["size", IntDistribution(1, 4)]
            return self.size
        assert about == [{"size": self.size}]
        return {"judge": self.before, "latency": self.latency}[what]


def setup(space: Build = sized, **options: Any) -> Setup:
    given = {
        "batches": (batch(),),
        "proxy": "params",
        "budget": Budget(),
        "objectives": ("score",),
        "init": "default",
        "seed": 0,
        "trained_teacher": False,
    }
    return Setup(teacher(), space, **{**given, **options})


# Choices


def test_each_choice_is_asked_for_once() -> None:
    driver = Driver(size=3)
    trial = Asked(driver, number=7)

    assert [trial.suggest_int("size", 1, 4) for _ in range(2)] == [3, 3]
    assert driver.asked == ["suggest"] and trial.number == 7 and trial.params == {"size": 3}


def test_what_is_wrong_with_a_choice_is_raised_where_it_is_made() -> None:
    with pytest.raises(ValueError, match="other choices before"):
        Asked(Driver(size=ValueError("other choices before")), 0).suggest_int("size", 1, 4)


# One candidate


def test_score_sizes_and_margins() -> None:
    driver = Driver()
    limits = Budget(max_params=40, max_latency=0.5)
    objectives = ("score", "macs", "latency")

    end = setup(budget=limits, objectives=objectives).examiner().examine(0, driver)

    assert end == {
        "score": 10,
        "scores": {"params": [10]},
        "model_params": 10,
        "costs": {"params": 10, "macs": 10, "latency": 0.25},
        "margins": {"params": 10 / 40 - 1, "latency": 0.25 / 0.5 - 1},
    }
    assert driver.asked == ["suggest", "judge", "latency"]


def test_budget_is_checked_before_anything_is_measured_or_scored() -> None:
    driver = Driver(size=3)
    limits = Budget(max_params=12, max_latency=0.5)

    end = setup(proxy="diswot", budget=limits).examiner().examine(0, driver)

    excess = {"of": "params", "value": 15, "limit": 12}
    assert end == {"rejected": excess, "margins": {"params": 15 / 12 - 1}}
    assert driver.asked == ["suggest", "judge"]


def test_what_is_known_is_not_scored() -> None:
    before = {"reused": 3, "score": 1.0}
    assert setup(proxy="diswot").examiner().examine(0, Driver(before=before)) is before


def test_score_is_the_mean_over_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    length = replace(PROXIES["params"], score=lambda candidate: float(len(candidate.batch.labels)))
    monkeypatch.setitem(PROXIES, "length", length)

    end = setup(proxy="length", batches=(batch(4), batch(7))).examiner().examine(0, Driver())

    assert (end["score"], end["scores"]) == (5.5, {"length": [4, 7]})


@pytest.mark.parametrize(("most", "large"), [(14, True), (15, False)])
def test_after_a_very_large_one_weights_are_not_drawn(
    most: int, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LARGE", most)
    devices: list[str] = []

    def space(trial: BaseTrial) -> nn.Module:
        model = sized(trial)
        devices.append(next(model.parameters()).device.type)
        return model

    own = setup(space, budget=Budget(max_params=12)).examiner()
    first, second, third = Driver(size=3), Driver(size=4), Driver(size=1)

    assert own.examine(0, first)["rejected"]["value"] == 15
    assert own.examine(1, second)["rejected"]["value"] == 20
    assert own.examine(2, third)["score"] == 5

    assert own.large
    asked = ["suggest"] if large else ["suggest", "judge"]
    assert (second.asked, third.asked) == (asked, ["suggest", "judge"])
    assert devices == ["cpu", *(["meta"] if large else ["cpu"]), "meta", "cpu"]


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (ValueError("no\nnetwork"), {"failed": "ValueError: no", "kind": "error"}),
        (SystemExit("enough"), {"failed": "SystemExit: enough", "kind": "error"}),
        (MemoryError(), {"failed": "MemoryError: ", "kind": "memory"}),
    ],
)
def test_network_that_raises_has_failed(error: BaseException, end: dict[str, str]) -> None:
    def space(trial: BaseTrial) -> nn.Module:
        raise error

    assert setup(space).examiner().examine(0, Driver()) == end


@pytest.mark.parametrize("error", [SearchFailed("no worker starts"), KeyboardInterrupt()])
def test_what_ends_the_search_passes(error: BaseException) -> None:
    def space(trial: BaseTrial) -> nn.Module:
        raise error

    with pytest.raises(type(error)):
        setup(space).examiner().examine(0, Driver())


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), "memory"),
        (NotScored("diswot", math.nan), "not finite"),
        (RuntimeError("sizes differ"), "error"),
    ],
)
def test_failures_by_kind(error: Exception, kind: str) -> None:
    assert failed(error)["kind"] == kind


# Tasks


@pytest.mark.parametrize(("limit", "count"), [(4, 4), (3, None)])
def test_space_is_enumerated_without_touching_random_numbers(limit: int, count: int | None) -> None:
    def space(trial: BaseTrial) -> nn.Module:
        model = sized(trial)
        torch.rand(1, device="cpu")
        return model

    state = torch.get_rng_state()
    found = work(setup(space).examiner(), ("enumerate", limit), Driver())

    assert found == (None if count is None else [{"size": 1 + i} for i in range(count)])
    assert torch.equal(torch.get_rng_state(), state)


def test_one_alone_does_a_task_at_a_time() -> None:
    questions: list[Any] = []

    def answer(key: Any, question: Any) -> Any:
        questions.append((key, question[0]))
        return Driver()(question)

    alone = Alone(setup().examiner())
    assert alone.room == 1 and alone.wait(answer) == []

    alone.put(11, ("examine", 11), patience=3)
    assert alone.room == 0
    (outcome,) = alone.wait(answer)

    assert (outcome.key, outcome.result["score"], outcome.kind) == (11, 10, "")
    assert questions == [(11, "suggest"), (11, "judge")]
    assert alone.room == 1 and alone.wait(answer) == []


def test_examiner_knows_what_its_setup_says() -> None:
    own = setup(proxy="relation", objectives=("score", "macs"), seed=3, init="kaiming").examiner()

    assert (own.proxy, own.image_shape, own.objectives) == (
        "relation",
        (3, 8, 8),
        ("score", "macs"),
    )
    assert (own.scorer.init, own.scorer.seed, len(own.scorer.teachers)) == ("kaiming", 3, 1)
    assert own.scorer.teachers[0].logits.shape == (6, CLASSES)


@pytest.mark.parametrize(("proxy", "shares"), [("diswot", True), ("synflow", False)])
def test_only_scores_of_one_pass_share_what_candidates_begin_with(
    proxy: str, shares: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    went: list[nn.Module] = []
    through: Callable[..., Any] = lambda chain, model: went.append(model) or model  # noqa: E731
    monkeypatch.setattr(module.Chain, "through", through)
    own: Examiner = setup(proxy=proxy).examiner()

    list(own._students(sized(Asked(Driver(), 0)), {"size": 2}))

    assert len(went) == shares
