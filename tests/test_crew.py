"""Who examines candidates, and where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import toyspaces
from test_workers import told

from diswot import devices
from diswot.cluster import Cluster
from diswot.crew import Staff
from diswot.errors import UserError
from diswot.search import Found, search


def run(place: Path, **options: Any) -> Found:
    options = {"sampler": "random", "proxy": "diswot", "trials": 8, "threads": 1, **options}
    return search(toyspaces.teacher(), toyspaces.tiny, toyspaces.batch(), storage=place, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"places": ("cpu", "cuda:0")}, "on devices of one kind, not on cpu and cuda"),
        ({"places": ("cuda:0", "cuda:1"), "workers": 1}, "2 devices need as many workers, not 1"),
        ({"places": ("cuda:0", "cuda:1"), "cluster": Cluster()}, "on Ray each worker is given its"),
    ],
)
def test_what_does_not_go_together(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Staff(**options)


def test_devices() -> None:
    cpu = torch.device("cpu")

    assert Staff().devices(cpu) == ("cpu",)
    assert Staff().devices(torch.device("cuda:1")) == ("cuda:1",)
    assert Staff(places=("cuda:0", "cuda:1")).devices(cpu) == ("cuda:0", "cuda:1")
    assert Staff(cluster=Cluster()).devices(cpu) == ("cpu",)
    assert Staff(cluster=Cluster(gpus=0.5)).devices(cpu) == ("cuda",)
    assert Staff(cluster=Cluster(gpus=0.5), places=("cpu",)).devices(cpu) == ("cpu",)


def test_a_worker_on_each_device_finds_what_one_process_finds(tmp_path: Path) -> None:
    run(tmp_path / "one")
    run(tmp_path / "two", devices=["cpu", "cpu"])

    assert told(tmp_path / "two") == told(tmp_path / "one")


@pytest.mark.parametrize("workers", [None, 1])
def test_a_device_that_is_not_here(
    workers: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "accelerators", list)
    with pytest.raises(UserError, match=r"^no device cuda:7 here; there is: cpu$"):
        run(tmp_path / "a", devices=["cuda:7"], workers=workers)
    assert not (tmp_path / "a").exists()
