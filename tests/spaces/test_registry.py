from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import BaseTrial, FixedTrial
from torch import nn
from toyspaces import branching, samples, tiny

from diswot.errors import UserError
from diswot.nas.aging_evolution import digest
from diswot.spaces.registry import (
    NamedSpace,
    Params,
    build_network,
    construct,
    create_space,
    enumerate_params,
)
from diswot.spaces.validation import Build

# By name


def test_unknown_space() -> None:
    with pytest.raises(UserError, match="unknown space 'nasbench200'; did you mean nasbench201"):
        create_space("nasbench200")
    with pytest.raises(UserError, match="unknown space 'zzz'; known: "):
        create_space("zzz")


@pytest.fixture
def mine(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "def space(trial, classes):\n"
        "    return nn.Linear(trial.suggest_int('width', 1, 3), classes)\n"
        "def plain(trial):\n"
        "    return nn.Linear(trial.suggest_int('width', 1, 3), 2)\n"
    )
    return str(tmp_path / "mine.py")


def test_space_of_a_file(mine: str) -> None:
    assert (
        build_network(create_space(f"{mine}:space", num_classes=7), {"width": 2}).out_features == 7
    )
    assert (
        build_network(create_space(f"{mine}:plain", num_classes=7), {"width": 2}).out_features == 2
    )
    assert enumerate_params(create_space(f"{mine}:space"), 9) == [{"width": w} for w in (1, 2, 3)]


def test_space_of_a_file_that_is_not_there(mine: str) -> None:
    with pytest.raises(UserError, match="did you mean space"):
        create_space(f"{mine}:spaec")
    with pytest.raises(UserError, match="no such file"):
        create_space("nowhere.py:space")


def test_a_space_knows_its_name_and_sizes() -> None:
    space = create_space("s0", num_classes=7, img_size=16)

    assert space.facts == {"space": "s0", "classes": 7, "image_size": 16}


@pytest.mark.parametrize(
    ("name", "recorded"),
    [
        ("mine.py:space", "{}/mine.py:space"),
        ("dense:mine.py:space+lraspp", "dense:{}/mine.py:space+lraspp"),
        ("detector:subnet:mine.py:net+fcos", "detector:subnet:{}/mine.py:net+fcos"),
        ("detector:dense.py:net+fcos", "detector:{}/dense.py:net+fcos"),
        ("subnet:timm:vit_tiny_patch16_224", "subnet:timm:vit_tiny_patch16_224"),
        ("timm_zoo:mobilenetv3*", "timm_zoo:mobilenetv3*"),
    ],
)
def test_a_file_is_recorded_with_its_folder(
    name: str, recorded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert NamedSpace(lambda trial: None, name, 7, 8).facts["space"] == recorded.format(tmp_path)


# One network


GOOD = {"width": 4, "kernel": 3, "depth": 2, "act": "tanh"}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "parameter 'width' is missing; its choices"),
        ({k: v for k, v in GOOD.items() if k != "act"}, "parameter 'act' is missing"),
        (GOOD | {"depth": 4}, "depth = 4 is not among its choices"),
        (GOOD | {"width": "4"}, "width = '4' is not among its choices"),
        (GOOD | {"kernal": 3}, "unknown parameter 'kernal'; did you mean kernel"),
        ({**GOOD, "a": 1, "b": 2}, "unknown parameter 'a'"),
    ],
)
def test_network_says_what_is_wrong(params: Params, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        build_network(tiny, params)
    assert "\n" not in str(error.value)


def test_choice_of_another_branch_is_unknown() -> None:
    with pytest.raises(UserError, match="unknown parameter 'width1'"):
        build_network(branching, {"depth": 1, "width0": 2, "width1": 4})


@pytest.mark.parametrize("made", [None, 3, nn.ReLU, [nn.ReLU()]])
def test_space_must_return_a_module(made: Any) -> None:
    with pytest.raises(UserError, match="a space must return a torch module, not a"):
        build_network(lambda trial: made, {})
    with pytest.raises(UserError, match="a space must return a torch module, not a"):
        construct(lambda trial: made, FixedTrial({}))


# All networks


def brute(build: Build, wanted: int) -> set[Any]:
    """As many architectures as random sampling finds."""
    return {digest(params) for params, _ in samples(build, 15 * wanted)}


@pytest.mark.parametrize(("build", "size"), [(tiny, 36), (branching, 14)])
def test_all_architectures_once(build: Build, size: int) -> None:
    plan = enumerate_params(build, size)

    assert plan is not None and len(plan) == size
    assert {digest(params) for params in plan} == brute(build, size)
    assert enumerate_params(build, size + 1) == plan == enumerate_params(build, 10**9)
    for limit in (1, size // 2, size - 1):
        assert enumerate_params(build, limit) is None
    for params in plan:
        build_network(build, params)


def test_no_choice_is_one_architecture() -> None:
    assert enumerate_params(lambda trial: nn.ReLU(), 1) == [{}]


def built(build: Callable[[BaseTrial], object], limit: int) -> tuple[int, list[Params] | None]:
    """How many networks the enumeration builds, and what it gives."""
    count = itertools.count()

    def space(trial: BaseTrial) -> nn.Module:
        next(count)
        build(trial)
        return nn.ReLU()

    plan = enumerate_params(space, limit)
    return next(count), plan


def large(trial: BaseTrial) -> None:
    for i in range(30):
        trial.suggest_categorical(f"a{i}", list("abcde"))


def richest_first(trial: BaseTrial) -> None:
    """101 architectures, though the first promises 200."""
    if trial.suggest_categorical("rich", [True, False]):
        trial.suggest_int("a", 1, 100)


def growing(trial: BaseTrial) -> None:
    """21 architectures, though the last promises a million."""
    for i in range(20):
        if not trial.suggest_categorical(f"more{i}", [False, True]):
            return


def continuous(trial: BaseTrial) -> None:
    if trial.suggest_categorical("kind", ["fixed", "free"]) == "free":
        trial.suggest_float("rate", 0, 1)
    trial.suggest_categorical("last", ["a", "b"])


@pytest.mark.parametrize(
    ("build", "limit", "builds", "size"),
    [
        (large, 1000, 2, None),
        (large, 10**15, 2, None),
        (richest_first, 150, 103, 101),
        (richest_first, 101, 103, 101),
        (richest_first, 100, 103, None),
        (growing, 21, 23, 21),
        (growing, 20, 23, None),
        (continuous, 100, 5, None),
        (lambda trial: trial.suggest_float("rate", 0, 1), 10**9, 2, None),
        (lambda trial: trial.suggest_float("rate", 0, 0.3, step=0.1), 9, 6, 4),
        (lambda trial: trial.suggest_float("rate", 2, 2), 9, 3, 1),
        (lambda trial: trial.suggest_int("large", 1, 10**12), 10**6, 2, None),
    ],
)
def test_few_networks_are_built_to_count(
    build: Build, limit: int, builds: int, size: int | None
) -> None:
    made, plan = built(build, limit)

    assert made == builds
    assert (plan and len(plan)) == size


def test_architecture_that_cannot_be_built_is_one() -> None:
    def space(trial: BaseTrial) -> nn.Module:
        a = trial.suggest_int("a", 0, 2)
        if a == 1:
            raise optuna.TrialPruned
        trial.suggest_int("b", 0, a)
        return nn.ReLU()

    pairs = [(0, 0), (2, 0), (2, 1), (2, 2)]
    plan = [{"a": a, "b": b} for a, b in pairs]
    assert enumerate_params(space, 5) == [plan[0], {"a": 1}, *plan[1:]]
    assert enumerate_params(space, 4) is None


def test_interrupt_is_no_architecture() -> None:
    def space(trial: BaseTrial) -> nn.Module:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        enumerate_params(space, 5)


def test_only_what_is_needed_is_imported() -> None:
    """A process that searches S0 has no use for timm, nor for what that imports."""
    code = """
import sys
import diswot
import diswot.nas.api, diswot.ranking.rank, diswot.runs.folder, diswot.cli
from diswot.spaces.registry import SPACES
assert diswot.create_space("s0") and SPACES["nasbench201"].size == 5**6
heavy = {"matplotlib", "pandas", "plotly", "sklearn", "sympy", "timm", "torchvision"}
assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
assert diswot.create_space("pit") and "timm" in sys.modules
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
