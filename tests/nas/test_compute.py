"""Who examines candidates, and where: searches by workers find what one process finds."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
import toyspaces
from optuna.trial import BaseTrial, FrozenTrial
from searching import search
from torch import nn

from diswot.costs.budget import Budget
from diswot.errors import SearchFailed, UserError
from diswot.executors.ray import RayCluster
from diswot.nas.aging_evolution import digest
from diswot.nas.compute import Compute
from diswot.nas.result import SearchResult
from diswot.proxies.scorer import scorer
from diswot.spaces.registry import build_network
from diswot.spaces.validation import Build
from diswot.storage.study import open_storage
from diswot.utils import devices


def run(space: Build = toyspaces.tiny, **options: Any) -> SearchResult:
    options = {"proxy": "diswot", "workers": 2, "threads": 1, **options}
    return search(toyspaces.teacher(), space, options.pop("batches", toyspaces.batch()), **options)


def trials(where: Path | str) -> list[FrozenTrial]:
    return optuna.load_study(study_name="diswot", storage=open_storage(where)).trials


def outcomes(where: Path | str) -> list[tuple[Any, ...]]:
    """Of each trial all but its times, and which of twins was scored: that is chance."""
    return [(t.number, t.params, t.values, t.state) for t in trials(where)]


def small(place: Path, **options: Any) -> SearchResult:
    return run(storage=place, **{"sampler": "random", "trials": 8, "workers": None, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"devices": ("cpu", "cuda:0")}, "on devices of one kind, not on cpu and cuda"),
        ({"devices": ("cuda:0", "cuda:1"), "workers": 1}, "2 devices need as many workers, not 1"),
        ({"devices": ("cuda:0", "cuda:1"), "ray": RayCluster()}, "on Ray each worker is given its"),
    ],
)
def test_what_does_not_go_together(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Compute(**options)


def test_devices() -> None:
    cpu = torch.device("cpu")

    assert Compute().places(cpu) == ("cpu",)
    assert Compute().places(torch.device("cuda:1")) == ("cuda:1",)
    assert Compute(devices=("cuda:0", "cuda:1")).places(cpu) == ("cuda:0", "cuda:1")
    assert Compute(ray=RayCluster()).places(cpu) == ("cpu",)
    assert Compute(ray=RayCluster(gpus=0.5)).places(cpu) == ("cuda",)
    assert Compute(ray=RayCluster(gpus=0.5), devices=("cpu",)).places(cpu) == ("cpu",)


@pytest.mark.parametrize("workers", [None, 1])
def test_a_device_that_is_not_here(
    workers: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "accelerators", list)
    with pytest.raises(UserError, match=r"^no device cuda:7 here; there is: cpu$"):
        small(tmp_path / "a", devices=["cuda:7"], workers=workers)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    "options",
    [{"trials": 30, "sampler": "random"}, pytest.param({"trials": 36}, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize(
    "where",
    [{"devices": ["cpu", "cpu"], "workers": None}, pytest.param({}, marks=pytest.mark.slow)],
)
def test_workers_find_what_one_process_finds(
    options: dict[str, Any], where: dict[str, Any], tmp_path: Path
) -> None:
    """The same trials with the same scores, to the last bit; random ones repeat architectures."""
    options |= {"budget": Budget(max_params=450), "seed": 3}
    alone: dict[str, Any] = {"workers": None}
    places = [tmp_path / "one", tmp_path / "two"]
    founds = [
        run(storage=place, **options, **how)
        for how, place in zip((alone, where), places, strict=True)
    ]

    one, two = map(outcomes, places)
    assert one == two
    assert [replace(s, trial=0) for s in founds[0].top] == [
        replace(s, trial=0) for s in founds[1].top
    ]
    assert founds[0].reused == founds[1].reused
    assert founds[1].rejected > 0 and (founds[1].reused > 0) == ("sampler" in options)


@pytest.mark.slow
def test_evolution_scores_nothing_twice(tmp_path: Path) -> None:
    found = run(trials=35, storage=tmp_path)

    scored = [t for t in trials(tmp_path) if "scores" in t.user_attrs["end"]]
    assert found.trials == 35 == found.scored + found.reused
    assert len({digest(t.params) for t in scored}) == len(scored) == found.scored
    fixed = scorer(toyspaces.teacher(), [toyspaces.batch()])
    for trial in scored:
        build = partial(build_network, toyspaces.tiny, trial.params)
        assert fixed.score(fixed.students(build), ["diswot"])["diswot"] == [trial.value]


@pytest.mark.slow
def test_dynamic_space_is_enumerated_in_a_worker() -> None:
    found = run(toyspaces.branching, trials=14)

    assert found.exhaustive and found.scored == 14


class Deadly(nn.Module):
    """Ends the process that runs it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        os._exit(7)


def deadly(trial: BaseTrial) -> nn.Module:
    trial.suggest_int("number", 0, 2)
    return Deadly()


@pytest.mark.slow
def test_network_that_kills_its_worker() -> None:
    reason = "3 failed, such as: killed: its process died: exit status 7"
    with pytest.raises(SearchFailed, match=reason):
        run(deadly, trials=3, sampler="random", workers=1)


@pytest.mark.slow
def test_teacher_that_cannot_take_the_images_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the teacher cannot take images"):
        search(
            nn.Linear(3, 4), toyspaces.tiny, toyspaces.batch(), workers=1, storage=tmp_path / "a"
        )
    assert not (tmp_path / "a").exists()


def test_space_that_cannot_be_pickled_is_told() -> None:
    with pytest.raises(
        UserError, match="workers need a teacher, a space and a score that can be pickled"
    ):
        run(lambda trial: toyspaces.tiny(trial))


@pytest.mark.slow
def test_a_function_measures_latency_here() -> None:
    asked: list[dict[str, Any]] = []

    def latency(params: dict[str, Any]) -> float:
        asked.append(params)
        return 0.001 * params["kernel"]

    found = run(trials=36, latency=latency, budget=Budget(max_latency=0.002))

    assert found.scored == 18 and len(asked) == 36
    assert found.best.latency == 0.001
