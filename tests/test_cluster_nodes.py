"""Searches on a Ray cluster of two nodes: a node, candidates, drivers and the cluster die."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
import toyspaces
from commands import call
from searching import search

from diswot.executors.ray import RayCluster
from diswot.nas.progress import SearchProgress
from diswot.nas.result import SearchResult
from diswot.nas.trial_result import ATTRIBUTE
from diswot.storage.run_files import JOURNAL
from diswot.storage.study import open_storage

ray = pytest.importorskip("ray", reason="no ray here")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def paths() -> Iterator[None]:
    """Actors import what this process does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
        yield


@pytest.fixture
def nodes(paths: None) -> Iterator[Any]:
    """Two nodes of one CPU each; this process is on the first."""
    from ray.cluster_utils import Cluster as Nodes

    made = Nodes(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        made.add_node(num_cpus=1)
        made.wait_for_nodes()
        yield made
    finally:
        made.shutdown()


SMALL = "search --teacher resnet20 --data digits --image-size 8 --batch-size 8 --proxy diswot"
MINE = """
import os
import time
from torch import nn

class Head(nn.Linear):
    mark = 0  # the first, the last and 8 are checked beforehand

    def forward(self, x):
        if self.mark == 1:
            os._exit(5)
        if self.mark == 2:
            time.sleep(1000)
        if self.mark == 3:
            raise RuntimeError("no student")
        if self.mark == 4:
            time.sleep(0.2)
        return super().forward(x)

def student(mark, classes):
    layers = [nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 64, 1)]
    head = Head(64, classes)
    head.mark = mark
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)

def space(trial, classes):
    number = trial.suggest_int("number", 0, 9)
    return student(number if number < 4 else 0, classes)

def slow(trial, classes):
    trial.suggest_int("number", 0, 10**6)
    return student(4, classes)
"""


def run(place: Path, **options: Any) -> SearchResult:
    options = {"sampler": "random", "proxy": "diswot", "seed": 3, "threads": 1, **options}
    batch = toyspaces.batch()
    return search(toyspaces.teacher(), toyspaces.tiny, batch, trials=40, storage=place, **options)


def ends(folder: Path) -> dict[int, tuple[dict[str, Any], Any]]:
    """Return parameters and attribute of each trial that ended, by its number."""
    study = optuna.load_study(study_name="diswot", storage=open_storage(folder))
    return {t.number: (t.params, t.user_attrs[ATTRIBUTE]) for t in study.trials}


def test_search_continues_when_a_node_is_killed(nodes: Any, tmp_path: Path) -> None:
    """It ends with the number of trials asked for, and the scores of one process."""
    killed: list[int] = []

    def kill(progress: SearchProgress) -> None:
        taken = ray.available_resources().get("CPU", 0.0) == 0.0
        if progress.done >= 5 and taken and not killed:
            killed.append(progress.done)
            nodes.remove_node(next(iter(nodes.worker_nodes)), allow_graceful=False)

    there = run(tmp_path / "ray", ray=RayCluster(nodes.address), callbacks=[kill])
    here = run(tmp_path / "one", workers=1)

    assert killed and killed[0] < 35
    assert there.trials == here.trials and there.failed == 0
    assert ends(tmp_path / "ray") == ends(tmp_path / "one")


def test_candidates_that_fail_are_counted_by_kind(nodes: Any, tmp_path: Path) -> None:
    """Standard output holds nothing but the result, though Ray prints there of actors that die."""
    (tmp_path / "mine.py").write_text(MINE)
    line = f"{SMALL} --space {tmp_path / 'mine.py'}:space --trials 10 --timeout 20 --json --quiet"

    found = call(f"{line} --ray {nodes.address}").json

    assert found["trials"] == 10 == found["scored"] + found["reused"] + found["failed"]
    assert found["failed_by_kind"] == {"killed": 1, "timeout": 1, "error": 1}


def actors() -> set[int]:
    """Return the processes of workers on this machine."""
    named = [process for process in psutil.process_iter(["cmdline"]) if process.info["cmdline"]]
    return {each.pid for each in named if each.info["cmdline"][0].startswith("ray::RayWorker")}


def test_actors_end_with_their_driver(nodes: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    line = f"{SMALL} --space {tmp_path / 'mine.py'}:slow --trials 1000 --ray {nodes.address}"
    driver = subprocess.Popen([sys.executable, "-m", "diswot", *shlex.split(line)])
    try:
        wait(lambda: len(actors()) == 2)
    finally:
        driver.kill()
        driver.wait()

    wait(lambda: not actors())


def test_cluster_that_is_lost(nodes: Any, tmp_path: Path) -> None:
    """All nodes at once: one line names the cluster, and the search is resumed without it."""
    (tmp_path / "mine.py").write_text(MINE)
    line = (
        f"{SMALL} --space {tmp_path / 'mine.py'}:slow --trials 40 --quiet --out {tmp_path / 'run'}"
    )
    address = nodes.address
    command = [sys.executable, "-m", "diswot", *shlex.split(line), "--ray", address]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as driver:
        try:
            wait(lambda: len(recorded(tmp_path / "run")) >= 5)
            nodes.shutdown()
            assert driver.wait(120) == 1
        finally:
            driver.kill()
        said = driver.stderr.read() if driver.stderr else ""
    kept = recorded(tmp_path / "run")

    found = call(f"{line} --resume --workers 1 --json").json

    assert f"diswot: the Ray cluster at {address} is lost: " in said
    assert "Traceback" not in said
    assert found["trials"] == 40 and found["failed"] == 0
    assert 5 <= len(kept) < 40 and recorded(tmp_path / "run")[: len(kept)] == kept


def recorded(run: Path) -> list[str]:
    """Return the lines of a journal that end a trial, in their order."""
    journal = run / JOURNAL
    lines = journal.read_text().splitlines() if journal.exists() else []
    return [line for line in lines if '"user_attr":{"end":' in line]


def wait(over: Callable[[], bool]) -> None:
    limit = time.monotonic() + 120
    while not over():
        assert time.monotonic() < limit
        time.sleep(0.2)
