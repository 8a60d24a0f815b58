from __future__ import annotations

import json
import logging
import math
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
import toys
import toyspaces
from optuna.trial import BaseTrial, FrozenTrial, TrialState
from searching import search
from torch import nn
from toyspaces import batch, branching, counted, letters, teacher, tiny

from diswot.costs.budget import Budget, Costs
from diswot.costs.counts import count_macs, count_params
from diswot.errors import SearchFailed, UserError
from diswot.nas import api
from diswot.nas.aging_evolution import Digest, digest
from diswot.nas.progress import SearchProgress
from diswot.nas.result import SearchResult, differ
from diswot.nas.samplers import SAMPLERS
from diswot.proxies.candidate import Candidate
from diswot.proxies.registry import PROXIES
from diswot.proxies.scorer import scorer
from diswot.spaces.cifar_resnet import CifarResNet
from diswot.spaces.registry import build_network, create_space, enumerate_params
from diswot.spaces.validation import Build
from diswot.storage.journal import Journal
from diswot.storage.run_files import JOURNAL
from diswot.storage.study import open_storage

SHAPE = (3, toys.PIXELS, toys.PIXELS)
SEEDS = range(3)


def run(space: Build = tiny, **options: Any) -> SearchResult:
    """By the score that looks at one pass a student, unless another is named."""
    options = {"proxy": "diswot", **options}
    return search(teacher(), space, options.pop("batches", batch()), **options)


def trials(where: Path | str) -> list[FrozenTrial]:
    storage = open_storage(where)
    return optuna.load_study(study_name="diswot", storage=storage).trials


def ends(where: Path | str, kind: str) -> list[FrozenTrial]:
    return [trial for trial in trials(where) if kind in trial.user_attrs.get("end", {})]


def outcomes(where: Path | str) -> list[tuple[dict[str, Any], float | None]]:
    return [(trial.params, trial.value) for trial in trials(where)]


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Candidate], float]], None]:
    """Puts a score into the table as `toy`."""

    def put(score: Callable[[Candidate], float]) -> None:
        monkeypatch.setitem(PROXIES, "toy", replace(PROXIES["params"], score=score))

    return put


# What is found


def test_exhaustive_search_scores_every_network_of_s0_once(tmp_path: Path) -> None:
    master, few = CifarResNet((1, 1, 1), toys.CLASSES), batch(4)
    space = create_space("s0", num_classes=toys.CLASSES)

    found = search(master, space, few, proxy="diswot", trials=64, seed=3, storage=tmp_path)

    assert (found.trials, found.scored, found.exhaustive) == (64, 64, True)
    fixed = scorer(master, [few], seed=3)
    scores = {}
    for a, b, c in [(a, b, c) for a in (7, 5, 3, 1) for b in (1, 7, 3, 5) for c in (3, 1, 7, 5)]:
        params = {"blocks1": a, "blocks2": b, "blocks3": c}
        built = fixed.score(
            fixed.students(lambda params=params: build_network(space, params)), ["diswot"]
        )
        scores[digest(params)] = built["diswot"][0]
    assert {digest(params): value for params, value in outcomes(tmp_path)} == scores
    assert [student.score for student in found.top] == sorted(scores.values())[:-11:-1]
    assert scores[digest(found.best.params)] == found.best.score == max(scores.values())


def test_found_tells_sizes_and_trials(tmp_path: Path) -> None:
    found = run(trials=36, storage=tmp_path)

    assert len(found.top) == 10 and found.best == found.top[0] == found.diverse[0]
    assert len(found.diverse) == 10 == len({student.trial for student in found.diverse})
    largest = max(student.model_params for student in found.top)
    assert found.diverse[1].model_params >= largest
    assert differ(found.diverse[0].params, found.diverse[2].params)
    for student in (*found.top, *found.diverse):
        network = build_network(tiny, student.params)
        assert student.model_params == count_params(network)
        assert student.macs == count_macs(network, SHAPE)
        assert trials(tmp_path)[student.trial].params == student.params
    assert found.seconds > 36 * found.seconds_per_candidate / 2 > 0
    assert json.loads(json.dumps(found.as_dict()))["best"]["params"] == found.best.params


def test_best_score_wins_and_the_smallest_of_equal_ones(toy: Any) -> None:
    toy(lambda candidate: -abs(sum(p.numel() for p in candidate.student.parameters()) - 400))
    found = run(trials=36, proxy="toy")
    sizes = [count_params(build_network(tiny, p)) for p in enumerate_params(tiny, 36) or ()]

    assert found.best.model_params == min(sizes, key=lambda size: abs(size - 400))

    toy(lambda candidate: 1)
    equal = run(trials=36, proxy="toy").top
    order = [(student.model_params, student.trial) for student in equal]
    assert order == sorted(order) and [size for size, _ in order] == sorted(sizes)[:10]


def test_repeats_are_averaged() -> None:
    batches = [batch(4), batch(5), batch(6)]
    fixed = scorer(teacher(), batches, seed=2)

    found = run(branching, batches=batches, trials=14, seed=2)

    for student in found.top:
        build = lambda params=student.params: build_network(branching, params)  # noqa: E731
        values = fixed.score(fixed.students(build), ["diswot"])["diswot"]
        assert len(set(values)) == 3
        assert student.score == pytest.approx(sum(values) / 3, rel=1e-12)
        assert student.standard_error == pytest.approx(np.std(values, ddof=1) / 3**0.5)


@pytest.mark.parametrize("trained", [False, True])
def test_trained_teacher_keeps_its_weights(trained: bool) -> None:
    one, other = teacher(), toys.seeded(toys.LinearHead, 1)
    scores = [
        search(
            model, branching, batch(), proxy="diswot", trials=14, trained_teacher=trained
        ).best.score
        for model in (one, other)
    ]

    assert (scores[0] != scores[1]) == trained


@pytest.mark.parametrize(
    ("options", "proxy", "init"),
    [
        ({}, "default", "kaiming"),
        ({"proxy": "diswot"}, "diswot", "gaussian"),
        ({"init": "gaussian"}, "default", "gaussian"),
        ({"proxy": "diswot", "init": "kaiming"}, "diswot", "kaiming"),
    ],
)
def test_default_score_and_its_initialisation(
    options: dict[str, str], proxy: str, init: str, tmp_path: Path
) -> None:
    search(teacher(), tiny, batch(), trials=9, seed=3, storage=tmp_path, **options)

    def scores(init: str) -> list[float]:
        fixed = scorer(teacher(), [batch()], init=init, seed=3)
        builds = [partial(build_network, tiny, params) for params, _ in outcomes(tmp_path)]
        return [fixed.score(fixed.students(build), [proxy])[proxy][0] for build in builds]

    study = optuna.load_study(study_name="diswot", storage=open_storage(tmp_path))
    facts = study.user_attrs["config"]
    assert (facts["proxy"], facts["init"]) == (proxy, init)
    found = [value for _, value in outcomes(tmp_path)]
    assert len(found) == 9 and found == scores(init)
    assert found != scores("kaiming" if init == "gaussian" else "gaussian")


# What is inherited


@pytest.mark.parametrize(("proxy", "init"), [("agreement", None), ("relation", "inherited")])
def test_candidates_inherit_from_the_teacher(proxy: str, init: str | None, tmp_path: Path) -> None:
    """The teacher's architecture is in the space and wins; workers find the same scores."""
    blocks = {"blocks1": 3, "blocks2": 1, "blocks3": 1}
    space = partial(_inheriting, toys.CLASSES)
    model = toys.seeded(lambda: build_network(space, blocks))
    options: dict[str, Any] = {"proxy": proxy, "init": init, "trials": 8}
    found = search(model, space, batch(), storage=tmp_path / "a", **options)

    assert found.best.params == blocks and found.best.score == 0
    scores = {json.dumps(params): value for params, value in outcomes(tmp_path / "a")}
    assert len({*scores.values()}) == 8 and max(scores.values()) == 0
    if init is None:
        search(model, space, batch(), storage=tmp_path / "b", workers=1, **options)
        assert {json.dumps(params): value for params, value in outcomes(tmp_path / "b")} == scores
    study = optuna.load_study(study_name="diswot", storage=open_storage(tmp_path / "a"))
    facts = study.user_attrs["config"]
    assert (facts["init"], facts["trained_teacher"]) == ("inherited", True)


def _inheriting(classes: int, trial: BaseTrial) -> nn.Module:
    """Eight networks."""
    return CifarResNet([trial.suggest_int(f"blocks{i}", 1, 3, step=2) for i in (1, 2, 3)], classes)


# What is scored


@pytest.mark.parametrize(("space", "size"), [(tiny, 36), (branching, 14)])
def test_exhaustive_search_runs_each_network_once(space: Build, size: int) -> None:
    log: Counter[Digest] = Counter()

    found = run(counted(space, log), trials=100)

    assert found.exhaustive and found.trials == found.scored == size
    assert Counter(log.values()) == {1: size}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_equal_architectures_are_scored_once(sampler: str, tmp_path: Path) -> None:
    log: Counter[Digest] = Counter()

    found = run(counted(tiny, log), trials=35, sampler=sampler, storage=tmp_path)

    assert not found.exhaustive
    assert found.trials == 35 == found.scored + found.reused
    assert Counter(log.values()) == {1: found.scored}
    for trial in ends(tmp_path, "reused"):
        first = trials(tmp_path)[trial.user_attrs["end"]["reused"]]
        assert (first.params, first.value) == (trial.params, trial.value)
    assert (found.reused > 0) == (sampler != "evolution")


@pytest.mark.parametrize("asked", [36, 10])
@pytest.mark.parametrize(
    "budget", [Budget(max_params=300), Budget(max_macs=4000), Budget(max_params=400, max_macs=5500)]
)
def test_nothing_outside_the_budget_is_scored(budget: Budget, asked: int) -> None:
    log: Counter[Digest] = Counter()
    fits = {
        digest(params)
        for params in enumerate_params(tiny, 36) or ()
        if budget.check(Costs(build_network(tiny, params), SHAPE))[0] is None
    }

    found = run(counted(tiny, log), trials=asked, budget=budget)

    scored = {chosen for chosen, passes in log.items() if passes}
    assert 10 < len(fits) < 30
    assert scored <= fits and (asked == 10 or scored == fits)
    assert found.rejected > 0 and found.trials == found.scored == min(asked, len(fits))
    assert found.exhaustive == (asked == 36)
    for student in found.top:
        assert digest(student.params) in fits


def test_weights_of_large_networks_outside_the_budget_are_not_drawn() -> None:
    drawn: list[int] = []

    def space(trial: BaseTrial) -> nn.Module:
        depth = trial.suggest_int("depth", 1, 9)
        wide = [nn.Linear(2500, 2500) for _ in range(depth - 1)]
        if wide and wide[0].weight.device.type != "meta":
            drawn.append(depth)
        layers = [nn.Conv2d(3, 6, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        model = nn.Sequential(*layers, nn.Linear(6, toys.CLASSES))
        model[0].unused = nn.ModuleList(wide)
        return model

    found = search(
        teacher(), space, batch(), trials=9, proxy="relation", budget=Budget(max_params=13e6)
    )

    assert {student.params["depth"] for student in found.top} == {1, 2, 3}
    assert found.rejected == 6
    assert max(drawn) == 3


def test_exhaustive_search_goes_on_after_many_that_are_too_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("diswot.nas.stopping.STALLED", 3)

    def space(trial: BaseTrial) -> nn.Module:
        return toyspaces.Marked(0, size=40 - trial.suggest_int("small", 0, 30))

    found = run(space, trials=31, proxy="params", budget=Budget(max_params=60))

    assert (found.rejected, found.scored, found.best.params) == (28, 3, {"small": 28})


@pytest.mark.parametrize(
    ("budget", "nearest"),
    [
        (Budget(max_params=100), "none keeps max_params 100; the nearest has 127"),
        (Budget(max_macs=1000), "none keeps max_macs 1K; the nearest has 1.15K"),
        (
            Budget(130, 1000),
            "none of those within max_params keeps max_macs 1K; the nearest has 1.15K",
        ),
        (Budget(max_memory=1500), "none keeps max_memory 1.5KB; the nearest has 1.54KB"),
    ],
)
@pytest.mark.parametrize("asked", [36, 35])
def test_impossible_budget(
    budget: Budget,
    nearest: str,
    asked: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Width 2, kernel 1, depth 1 by hand: 54 + 2, 4 + 2, 12 + 6, 12, 30 + 5 parameters."""
    monkeypatch.setattr("diswot.nas.stopping.STALLED", 60)

    with pytest.raises(UserError) as error:
        run(trials=asked, budget=budget, storage=tmp_path)

    start = f"no student fits the budget among 36 different ones: {nearest} "
    assert str(error.value).startswith(start)
    end = "(127 params, 1.15K MACs): width=2 kernel=1 depth=1 act="
    assert budget.max_memory or str(error.value)[len(start) :].startswith(end)
    assert not ends(tmp_path, "score")


def valve(trial: BaseTrial) -> nn.Module:
    """4^8 networks of 8 to 32 parameters; one in 65,536 has 8."""
    sizes = [trial.suggest_int(f"size{i}", 1, 4) for i in range(8)]
    return toyspaces.Marked(str(sizes), sum(sizes))


@pytest.mark.parametrize(("most", "fit", "seed"), [*((9, 9, seed) for seed in SEEDS), (10, 45, 1)])
def test_a_budget_that_admits_next_to_nothing_is_found(most: int, fit: int, seed: int) -> None:
    """Of 65,536 networks 1 + 8 have at most one unit more than the least, 1 + 8 + 36 two."""
    budget = Budget(max_params=5 * most)

    found = run(valve, proxy="params", trials=fit, budget=budget, seed=seed)

    assert found.scored == fit and found.rejected < 2500


def test_a_search_ends_when_no_more_students_fit() -> None:
    """Of 65,536 networks 1 + 8 + 36 have at most two units more than the least."""
    found = run(valve, proxy="params", trials=500, budget=Budget(max_params=50))

    assert found.scored == found.trials == 45 and found.rejected < 2500
    assert found.stopped.endswith(" proposals gave no new student within the budget")
    assert f"of 45 scored students in {found.seconds:.1f} s" in repr(found)
    assert repr(found).endswith(f"; stopped early: {found.stopped})")


# What fails


def raising(trial: BaseTrial) -> nn.Module:
    """One in four cannot be built, one runs badly, one is not finite, one is fine."""
    kind, size = trial.suggest_categorical("kind", list("bfns")), trial.suggest_int("size", 1, 9)
    if kind == "b":
        raise ValueError("cannot\nbe built")
    if kind == "f":
        return toys.Broken()
    model = toyspaces.student([nn.Conv2d(3, size, 1)], size)
    if kind == "n":
        nn.init.constant_(model[-1].bias, math.nan)
    return model


@pytest.mark.parametrize("asked", [36, 30])
def test_search_goes_on_after_a_failure(asked: int, tmp_path: Path) -> None:
    found = run(raising, trials=asked, init="default", proxy="kd", storage=tmp_path)

    assert found.scored >= 6 and found.trials == asked == found.scored + found.failed
    assert all(student.params["kind"] == "s" for student in found.top)
    assert sum(found.failures.values()) == found.failed
    reasons = {"ValueError: cannot", "RuntimeError: broken half-way"}
    assert found.failures.keys() == reasons | {"kd is nan: the logits are not finite"}
    assert {t.state for t in ends(tmp_path, "failed")} == {TrialState.FAIL}


def test_exhaustive_search_goes_on_after_many_failures() -> None:
    def space(trial: BaseTrial) -> nn.Module:
        if trial.suggest_int("number", 0, 49) < 48:
            raise ValueError("too small")
        return toyspaces.Marked(0)

    found = run(space, trials=50, proxy="params")

    assert (found.scored, found.failed) == (2, 48)


@pytest.mark.parametrize("asked", [5, 36, 30])
def test_all_candidates_fail(asked: int) -> None:
    passes = []

    def space(trial: BaseTrial) -> nn.Module:
        tiny(trial)
        passes.append(trial)
        return toys.Broken()

    with pytest.raises(SearchFailed) as error:
        run(space, trials=asked)

    count = {5: 5, 36: 36, 30: 20}[asked]
    reason = "RuntimeError: broken half-way"
    assert str(error.value) == f"no candidate has a score; {count} failed, such as: {reason}"
    assert len(passes) < 2 * asked + 40  # listed, proposed and evaluated


def test_reason_is_the_most_frequent_one() -> None:
    def space(trial: BaseTrial) -> nn.Module:
        number = trial.suggest_int("number", 0, 9)
        if number == 5:
            return toyspaces.Marked(0, size=1000)
        raise ValueError("small" if number < 3 else "large")

    with pytest.raises(SearchFailed) as error:
        run(space, trials=10, budget=Budget(max_params=100))

    reason = "9 failed, such as: ValueError: large"
    assert str(error.value) == f"no candidate within the budget has a score; {reason}"


@pytest.mark.parametrize(
    ("space", "reason"),
    [
        (lambda trial: 3, "such as: a space must return a torch module, not a int"),
        (lambda trial: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda trial: trial.suggest_int("a", 3, 2), "ValueError: .*low"),
        (lambda trial: trial.suggestint("a", 3, 2), "AttributeError: .*suggestint"),
        (lambda trial: toyspaces.student([nn.Conv2d(1, 2, 1)], 2), "channels"),
        (lambda trial: nn.Flatten(), "such as: no classifier found"),
    ],
)
def test_space_that_makes_no_networks(space: Build, reason: str) -> None:
    with pytest.raises(SearchFailed, match=reason) as error:
        run(space)

    assert "\n" not in str(error.value)


def test_interrupt_is_no_failure(tmp_path: Path) -> None:
    def space(trial: BaseTrial) -> nn.Module:
        if trial.suggest_int("number", 0, 5) == 3 and interrupted:
            raise KeyboardInterrupt
        return toyspaces.Marked(0)

    interrupted = []
    plan = enumerate_params(space, 6)
    assert plan is not None
    interrupted = [True]
    with pytest.raises(KeyboardInterrupt):
        run(space, trials=6, proxy="params", storage=tmp_path)


# Names and numbers that are wrong


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampler": "evolutoin"}, "unknown sampler 'evolutoin'; did you mean evolution"),
        ({"proxy": "diswto"}, "unknown proxy 'diswto'; did you mean diswot"),
        ({"init": "gausian"}, "unknown initialisation 'gausian'; did you mean gaussian"),
        ({"trials": 0}, "at least one trial"),
        ({"batches": []}, "one batch"),
        ({"seed": -1}, "must not be below zero"),
        ({"seed": -1, "trained_teacher": True}, "must not be below zero"),
        ({"seed": -1, "trained_teacher": True, "sampler": "random"}, "must not be below zero"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        run(letters, storage=tmp_path / "new", **options)

    assert not (tmp_path / "new").exists()


def test_seed_may_be_large() -> None:
    for sampler in SAMPLERS:
        found = run(letters, trials=3, proxy="params", sampler=sampler, seed=2**70)
        assert found.trials == 3


def test_choices_that_no_storage_keeps_are_refused(tmp_path: Path) -> None:
    def space(trial: BaseTrial) -> nn.Module:
        trial.suggest_categorical("widths", [(1, 2), (3, 4)])
        return toyspaces.Marked(0)

    with (
        pytest.warns(UserWarning, match="persistent storage"),
        pytest.raises(UserError, match="choices of 'widths' must be numbers or strings, not tuple"),
    ):
        run(space, storage=tmp_path)
    assert not (tmp_path / JOURNAL).exists()


# The same again


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_same_seed_same_trials(sampler: str, tmp_path: Path) -> None:
    places = [tmp_path / name for name in "abc"]
    for place, seed in zip(places, (4, 4, 5), strict=True):
        run(trials=25, sampler=sampler, seed=seed, storage=place)

    assert outcomes(places[0]) == outcomes(places[1])
    assert [p for p, _ in outcomes(places[0])] != [p for p, _ in outcomes(places[2])]


SCRIPT = """
import sys, torch, toyspaces
torch.set_num_threads(1)
torch.manual_seed(99)
from searching import search
search(toyspaces.teacher(), toyspaces.tiny, toyspaces.batch(), proxy="diswot", trials={trials},
       seed=4, storage=sys.argv[1], resume=True)
"""


def process(place: Path, count: int) -> subprocess.Popen[bytes]:
    paths = [str(Path(toyspaces.__file__).parent), *sys.path]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-c", SCRIPT.format(trials=count), place.name]
    return subprocess.Popen(command, env=environment, cwd=place.parent)


def test_same_scores_in_another_process_and_order(tmp_path: Path) -> None:
    assert process(tmp_path / "other", 20).wait() == 0
    run(trials=20, seed=4, storage=tmp_path / "this")
    run(trials=36, seed=4, storage=tmp_path / "all")

    assert outcomes(tmp_path / "other") == outcomes(tmp_path / "this")
    scores = {digest(params): value for params, value in outcomes(tmp_path / "all")}
    assert {digest(params): value for params, value in outcomes(tmp_path / "this")}.items() <= (
        scores.items()
    )


@pytest.mark.parametrize("proxy", ["default", "diswot"])
def test_nothing_outside_is_changed(proxy: str) -> None:
    master = teacher()
    master.block1.eval()
    before = {name: value.clone() for name, value in master.state_dict().items()}
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()

    for sampler in SAMPLERS:
        for trained in (False, True):
            options = {"trials": 6, "sampler": sampler, "trained_teacher": trained}
            search(master, tiny, batch(), proxy=proxy, **options)

    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == states[1:]
    assert all(torch.equal(value, before[name]) for name, value in master.state_dict().items())
    assert [m.training for m in (master, master.block1, master.block2)] == [True, False, True]
    assert all(parameter.grad is None for parameter in master.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in master.modules())


# Stopping and going on


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_stopped_search_goes_on_as_if_it_had_not_stopped(sampler: str, tmp_path: Path) -> None:
    once, twice = tmp_path / "once", tmp_path / "twice"
    whole = run(letters, proxy="params", sampler=sampler, trials=45, storage=once)
    for count in (7, 26, 45):
        last = run(
            letters, proxy="params", sampler=sampler, trials=count, storage=twice, resume=True
        )

    assert outcomes(once) == outcomes(twice)
    assert (last.top, last.trials, last.reused) == (whole.top, whole.trials, whole.reused)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_interrupted_search_proposes_what_an_uninterrupted_one_does(
    sampler: str, toy: Any, tmp_path: Path
) -> None:
    """Ctrl-C while a candidate is evaluated, three times; a budget rejects some on the way."""
    once, twice = tmp_path / "once", tmp_path / "twice"
    budget, calls = Budget(max_params=400), iter(range(10**6))

    def score(candidate: Candidate) -> float:
        if next(calls) in stops:
            raise KeyboardInterrupt
        return float(sum(p.numel() for p in candidate.student.parameters()) % 37)

    stops: set[int] = set()
    toy(score)
    options = {"proxy": "toy", "sampler": sampler, "trials": 30, "budget": budget, "resume": True}
    whole = run(tiny, storage=once, **options)
    calls, stops = iter(range(10**6)), {3, 4, 12}
    for _ in stops:
        with pytest.raises(KeyboardInterrupt):
            run(tiny, storage=twice, **options)
    last = run(tiny, storage=twice, **options)

    assert outcomes(once) == outcomes(twice)
    assert (last.best, last.rejected, last.reused) == (whole.best, whole.rejected, whole.reused)


def test_search_that_is_done_is_not_searched_again(tmp_path: Path) -> None:
    first = run(trials=36, storage=tmp_path)
    log: Counter[Digest] = Counter()

    for asked in (36, 36, 10, 1):
        again = run(counted(tiny, log), trials=asked, storage=tmp_path, resume=True)
        assert again.top == first.top and again.scored == 36

    assert not +log and len(trials(tmp_path)) == 36


def test_sampled_search_may_be_completed(tmp_path: Path) -> None:
    log: Counter[Digest] = Counter()
    budget = Budget(max_params=500)
    first = run(counted(tiny, log), trials=20, sampler="random", budget=budget, storage=tmp_path)
    assert first.reused > 0 and first.rejected > 0

    second = run(
        counted(tiny, log),
        trials=36,
        sampler="random",
        budget=budget,
        storage=tmp_path,
        resume=True,
    )

    assert second.exhaustive and second.scored == len(log)
    assert Counter(log.values()) == {1: len(log)}
    seen = {digest(trial.params) for trial in trials(tmp_path)}
    assert len(seen) == 36


def test_time_is_that_of_all_runs(tmp_path: Path) -> None:
    """Also in a database, where several processes may search at the same time."""
    for place in (tmp_path, f"sqlite:///{tmp_path}/studies.db"):
        first = run(trials=8, sampler="random", storage=place)
        start = time.perf_counter()
        second = run(trials=16, sampler="random", storage=place, resume=True)
        spent = time.perf_counter() - start
        third = run(trials=16, sampler="random", storage=place, resume=True)

        assert 0 < second.seconds - first.seconds < spent
        assert third.seconds == second.seconds and third.seconds_per_candidate > 0


class Killed(BaseException):
    """As from outside."""


@pytest.fixture
def kill(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, bool], None]:
    """Ends the process, as far as a test can, at a certain write to the journal."""
    append = Journal.append_logs

    def at(write: int, torn: bool) -> None:
        writes = iter(range(10**6))

        def dying(self: Journal, logs: list[dict[str, Any]]) -> None:
            if next(writes) != write:
                return append(self, logs)
            if torn:
                with self.path.open("ab") as file:
                    file.write(json.dumps(logs[0]).encode()[:-3])
            raise Killed

        monkeypatch.setattr(Journal, "append_logs", dying)

    return at


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("asked", [4, 3])
def test_killed_at_any_write_and_resumed(
    asked: int, torn: bool, toy: Any, kill: Callable[[int, bool], None], tmp_path: Path
) -> None:
    """Four architectures, one of which fails; visited all, or sampled."""
    scored: Counter[str] = Counter()

    def score(candidate: Candidate) -> float:
        scored[candidate.student.mark] += 1
        return float(candidate.student.mark == "bb") if candidate.student.mark != "ab" else math.nan

    def space(trial: BaseTrial) -> nn.Module:
        return toyspaces.Marked("".join(trial.suggest_categorical(n, ["a", "b"]) for n in "xy"))

    toy(score)
    options = {"trials": asked, "proxy": "toy", "resume": True}
    for write in range(10**6):
        place = tmp_path / str(write)
        kill(write, torn)
        try:
            run(space, storage=place, **options)
            break
        except Killed:
            pass
        kill(-1, False)
        journal = (place / JOURNAL).read_bytes()
        kept = journal[: journal.rindex(b"\n") + 1] if b"\n" in journal else b""
        recorded = {
            "".join(trial.params.values())
            for trial in (trials(place) if b'"op_code":4' in kept else ())
            if {"scores", "failed"} & trial.user_attrs.get("end", {}).keys()
        }
        scored.clear()

        found = run(space, storage=place, **options)

        assert (place / JOURNAL).read_bytes().startswith(kept)
        assert not recorded & scored.keys()
        assert set(scored.values()) <= {1}
        assert found.trials == asked == len(ends(place, "scores")) + len(ends(place, "failed"))
        assert len({digest(t.params) for t in trials(place) if "end" in t.user_attrs}) == asked
        assert all(trial.state.is_finished() for trial in trials(place))
        assert all(t.value == t.user_attrs["end"]["score"] for t in ends(place, "score"))
        again = run(space, storage=place, **options)
        assert again == found
        assert again.seconds_per_candidate > 0
    assert write > 5 * asked


def test_the_result_as_a_table() -> None:
    pytest.importorskip("pandas", reason="needs the extra pandas")
    found = run(trials=6)

    frame = found.to_dataframe()
    page = found._repr_html_()

    assert list(frame.index) == [student.trial for student in found.top]
    assert frame["score"].tolist() == [student.score for student in found.top]
    for name in found.best.params:
        column = [student.params[name] for student in found.top]
        assert frame[f"params_{name}"].tolist() == column
    assert page.count("<tr>") == len(found.top) + 1 and f"<td>{found.best.score:.5g}</td>" in page
    assert repr(found).startswith(f"SearchResult(best score {found.best.score:.5g} of ")


def test_the_result_as_a_figure() -> None:
    found = run(trials=6)
    student = replace(found.best, macs=7, score=2.5, params={"width": 3})
    several = replace(found, objectives=("score", "macs"), front=(student, student))

    (best,) = found.plot().to_plotly_json()["data"]
    _, front = several.plot().to_plotly_json()["data"]

    assert list(best["x"]) == [each.model_params for each in found.top]
    assert list(best["y"]) == [each.score for each in found.top] and best["mode"] == "markers"
    assert (list(front["x"]), list(front["y"])) == ([7, 7], [2.5, 2.5])
    assert front["name"] == "Pareto front" and list(front["text"]) == ["width=3"] * 2
    assert found.plot().layout.xaxis.title.text == "params"


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"seed": 1}, "seed = 0, not 1"),
        ({"proxy": "relation"}, "proxy = 'diswot', not 'relation'"),
        ({"proxy": "params"}, "proxy = 'diswot', not 'params'"),
        ({"proxy": "default"}, "init = 'gaussian', not 'kaiming'"),
        ({"proxy": "default", "init": "gaussian"}, "proxy = 'diswot', not 'default'"),
        ({"sampler": "random"}, "sampler = 'evolution', not 'random'"),
        ({"init": "default"}, "init = 'gaussian', not 'default'"),
        ({"trained_teacher": True}, "trained_teacher = False, not True"),
        ({"batches": batch(4)}, "batches = .*6, 3, 8, 8.*, not .*4, 3, 8, 8"),
        ({"batches": [batch(), batch()]}, "batches = "),
        ({"budget": Budget(max_params=1e6)}, "max_params = None, not 1000000"),
        ({"config": {"teacher": "resnet56"}}, "teacher = 'resnet20', not 'resnet56'"),
        ({"config": {}}, "teacher = 'resnet20', not None"),
    ],
)
def test_resume_with_other_facts_is_refused(
    change: dict[str, Any], difference: str, tmp_path: Path
) -> None:
    options = {"trials": 3, "config": {"teacher": "resnet20"}, "storage": tmp_path}
    run(**options)
    before = outcomes(tmp_path)

    with pytest.raises(UserError, match=f"the search begun before has {difference}"):
        run(**options | change, resume=True)

    assert outcomes(tmp_path) == before


def test_facts_may_be_tuples_and_paths(tmp_path: Path) -> None:
    config = {"folder": tmp_path, "size": (8, 8), "classes": {1: "one"}}
    for count in (2, 4):
        found = run(trials=count, config=config, storage=tmp_path, resume=True)

    assert found.trials == 4


def test_used_folder_is_refused_without_resume(tmp_path: Path) -> None:
    run(trials=2, storage=tmp_path)

    with pytest.raises(UserError, match="a search is here already; resume it"):
        run(trials=2, storage=tmp_path)
    run(trials=2, storage=tmp_path, study_name="another")


def test_study_of_something_else_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/studies.db"
    optuna.create_study(storage=url, study_name="diswot").optimize(lambda trial: 1, n_trials=1)

    with pytest.raises(UserError, match="the study 'diswot' there is of something else"):
        run(storage=url, resume=True)


def test_database_keeps_and_resumes(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/studies.db"
    log: Counter[Digest] = Counter()
    for asked, resume in ((5, False), (9, True)):
        found = run(counted(tiny, log), trials=asked, storage=url, resume=resume)

    assert found.trials == len(trials(url)) == 9
    assert Counter(log.values()) == {1: 9}
    assert run(trials=9, storage=url).top == found.top  # joined without being asked to resume


# Telling of it


@pytest.mark.parametrize("asked", [36, 20])
def test_progress_only_grows(asked: int, tmp_path: Path) -> None:
    steps: list[SearchProgress] = []
    options = {"budget": Budget(max_params=400), "storage": tmp_path}
    run(trials=8, **options)

    found = run(trials=asked, callbacks=[steps.append], resume=True, **options)

    assert [step.done for step in steps] == sorted(step.done for step in steps)
    assert {step.total for step in steps} == {asked}
    assert steps[0].done == 8 or asked == 36
    last, done = steps[-1], asked if asked == 36 else found.trials
    assert last == SearchProgress(done, asked, found.best.score, found.rejected, last.stalled)
    bests = [step.best for step in steps if step.best is not None]
    assert bests == sorted(bests)


# Whether it is worth it


def test_evolution_beats_random_where_neighbours_are_alike(toy: Any) -> None:
    """The score is the number of right letters among eight; one in 65,536 has them all."""
    toy(lambda candidate: sum(a == b for a, b in zip(candidate.student.mark, "abcdabcd")))  # noqa: B905

    def best(sampler: str, seed: int) -> float:
        return run(letters, proxy="toy", trials=150, sampler=sampler, seed=seed).best.score

    for seed in SEEDS:
        evolved = best("evolution", seed)
        assert evolved > best("random", seed)
        assert evolved >= 7


# Several objectives


@pytest.mark.parametrize("asked", [36, 25])
def test_front_is_what_no_scored_student_beats(asked: int, tmp_path: Path) -> None:
    found = run(trials=asked, objectives=("score", "macs", "memory"), storage=tmp_path)

    study = optuna.load_study(study_name="diswot", storage=open_storage(tmp_path))
    points = {digest(student.params): student for student in found.front}
    assert 1 < len(found.front) == len(points) < found.scored
    assert set(points) == {digest(trial.params) for trial in study.best_trials}
    for trial in study.best_trials:
        student = points[digest(trial.params)]
        counts = Costs(build_network(tiny, student.params), SHAPE).counts
        assert (student.macs, student.memory) == (counts.macs, counts.memory)
        assert trial.values == [student.score, student.macs, student.memory]
    assert found.front[0] == found.best
    assert [s.score for s in found.front] == sorted((s.score for s in found.front), reverse=True)
    assert json.loads(json.dumps(found.as_dict()))["objectives"] == ["score", "macs", "memory"]


def test_one_objective_has_no_front() -> None:
    found = run(trials=5)

    assert (found.objectives, found.front) == (("score",), ())


def seconds(params: dict[str, Any]) -> float:
    """As if measured: the smaller width times depth the faster."""
    return 1e-3 * params["width"] * params["depth"]


@pytest.mark.parametrize("sampler", ["nsga2", "tpe", "random"])
def test_search_of_a_front_goes_on_as_if_it_had_not_stopped(sampler: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"objectives": ("score", "latency"), "sampler": sampler}
    options |= {"budget": Budget(max_latency=12e-3), "latency": seconds}
    once, twice = tmp_path / "once", tmp_path / "twice"
    whole = run(trials=32, storage=once, **options)
    for count in (3, 22, 32):
        last = run(trials=count, storage=twice, resume=True, **options)

    assert [(t.params, t.values) for t in trials(once)] == [
        (t.params, t.values) for t in trials(twice)
    ]
    assert (last.front, last.trials, last.reused) == (whole.front, whole.trials, whole.reused)
    assert whole.reused > 0 < whole.rejected


def test_latency_is_measured_once_and_last_and_kept(tmp_path: Path) -> None:
    measured: Counter[Digest] = Counter()
    log: Counter[Digest] = Counter()

    def meter(params: dict[str, Any]) -> float:
        assert count_params(build_network(tiny, params)) <= 300
        assert not log[digest(params)]
        measured[digest(params)] += 1
        return seconds(params)

    budget = Budget(max_params=300, max_latency=6e-3)
    for asked in (20, 36):
        found = run(
            counted(tiny, log),
            trials=asked,
            sampler="random",
            budget=budget,
            latency=meter,
            storage=tmp_path,
            resume=True,
        )

    assert set(measured.values()) == {1} and len(measured) > found.scored
    assert all(student.latency == seconds(student.params) <= 6e-3 for student in found.top)
    assert {chosen for chosen, passes in log.items() if passes} <= measured.keys()
    assert run(trials=3).top[0].latency is None


def test_constraints_are_optunas(tmp_path: Path) -> None:
    """By their names, and as the list that its dashboard reads."""
    budget = Budget(max_params=300, max_macs=4000)
    run(trials=30, sampler="random", budget=budget, storage=tmp_path)

    assert len(ends(tmp_path, "reused")) > 0 < len(ends(tmp_path, "rejected"))
    for trial in trials(tmp_path):
        model = build_network(tiny, trial.params)
        sizes = {
            "params": count_params(model) / 300 - 1,
            "macs": count_macs(model, SHAPE) / 4e3 - 1,
        }
        if sizes["params"] > 0:
            del sizes["macs"]
        named = {name: trial.constraints[name] for name in sizes}
        assert named == sizes
        assert trial.system_attrs["constraints"] == list(sizes.values())
        assert all(value <= 0 for value in sizes.values()) == (trial.state == TrialState.COMPLETE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objectives": ("score", "flops")}, "unknown objective 'flops'; known: latency, macs"),
        ({"objectives": ("params", "macs")}, "objectives must be score and costs, each once"),
        ({"objectives": ("score", "macs", "macs")}, "must be score and costs, each once"),
        ({"objectives": ()}, "objectives must be score and costs"),
        ({"objectives": ("score", "macs"), "sampler": "evolution"}, "evolution has one objective"),
        ({"objectives": ("score", "latency")}, "nothing is given to measure it"),
        ({"budget": Budget(max_latency=1)}, "nothing is given to measure it"),
    ],
)
def test_wrong_objectives(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        run(letters, storage=tmp_path / "new", **options)

    assert not (tmp_path / "new").exists()


def test_the_dashboard_shows_objectives_and_sizes_by_name(tmp_path: Path) -> None:
    run(trials=12, objectives=("score", "macs"), budget=Budget(max_params="0.2M"), storage=tmp_path)

    storage = open_storage(tmp_path)
    assert storage is not None
    study = optuna.load_study(study_name="diswot", storage=storage)
    assert study.metric_names == ["score", "macs"]
    scored = ends(tmp_path, "scores")
    assert scored
    for trial in scored:
        costs = trial.user_attrs["end"]["costs"]
        assert trial.user_attrs["params"] == trial.user_attrs["end"]["model_params"]
        assert trial.user_attrs["macs"] == costs["macs"] == trial.values[1]


def test_a_search_prints_nothing(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    logger = logging.getLogger("optuna")
    monkeypatch.setattr(logger, "handlers", [Collected(said)])
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.INFO)
    try:
        api.search(None, tiny, batch(), n_trials=4, scoring="params", sampler="random")
        api.search(None, tiny, batch(), n_trials=4, scoring="params", sampler="tpe")
        assert optuna.logging.get_verbosity() == optuna.logging.INFO
    finally:
        optuna.logging.set_verbosity(before)
    assert said == [] and capfd.readouterr() == ("", "")


class Collected(logging.Handler):
    """A handler that keeps the texts of its records in a list."""

    def __init__(self, texts: list[str]) -> None:
        super().__init__()
        self.texts = texts

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def test_other_objectives_are_not_resumed(tmp_path: Path) -> None:
    run(trials=3, storage=tmp_path)

    with pytest.raises(UserError, match=r"objectives = \['score'\], not \['score', 'macs'\]"):
        run(trials=3, objectives=("score", "macs"), storage=tmp_path, resume=True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("resnet20", tiny, batch()), r"the teacher must be a network, not a str; make it: diswot"),
        ((None, "s0", batch()), r"create_space\('s0', num_classes=\.\.\.\)"),
        ((None, teacher(), batch()), "the space must be a function of a trial, not a "),
        ((None, tiny, "digits"), r"make it: diswot\.create_dataset\('digits'\)"),
        ((None, tiny, tuple(batch())), "the data must be a diswot data set or a batch"),
    ],
)
def test_arguments_of_other_types_are_one_line(arguments: tuple[Any, ...], said: str) -> None:
    with pytest.raises(UserError, match=said):
        api.search(*arguments, n_trials=1, scoring="params")
    with pytest.raises(UserError, match=r"the budget must be a diswot\.Budget, not a dict"):
        api.search(None, tiny, batch(), budget={"max_params": 3})  # type: ignore[arg-type]


def test_frozen_parameters_count_and_are_said() -> None:
    def frozen(trial: BaseTrial) -> nn.Module:
        model = tiny(trial)
        next(model.parameters()).requires_grad_(False)
        return model

    plain = api.search(None, tiny, batch(), n_trials=3, scoring="params").best
    found = api.search(None, frozen, batch(), n_trials=3, scoring="params").best

    first = next(build_network(tiny, found.params).parameters()).numel()
    assert (found.model_params, found.score) == (plain.model_params, plain.score)
    assert (found.trainable_params, plain.trainable_params) == (plain.model_params - first, None)
