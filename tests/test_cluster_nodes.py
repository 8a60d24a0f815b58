"""Searches on a Ray cluster of two nodes: a node, candidates and drivers die."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import toyspaces
from commands import call
from test_crew import told

from diswot.executors.ray import Cluster
from diswot.nas.api import search
from diswot.nas.driver import Progress
from diswot.nas.result import Found
from diswot.storage.run_files import JOURNAL

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

def student(width, classes):
    layers = [nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, width, 1)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)]
    return nn.Sequential(*layers, *head)

def space(trial, classes):
    number = trial.suggest_int("number", 0, 9)  # the first, the last and 8 are checked beforehand
    if number == 1:
        os._exit(5)
    if number == 2:
        time.sleep(1000)
    if number == 3:
        raise RuntimeError("no student")
    return student(64, classes)

def slow(trial, classes):
    trial.suggest_int("number", 0, 10**6)
    time.sleep(0.5)
    return student(64, classes)
"""


def run(place: Path, **options: Any) -> Found:
    options = {"sampler": "random", "proxy": "diswot", "seed": 3, "threads": 1, **options}
    batch = toyspaces.batch()
    return search(toyspaces.teacher(), toyspaces.tiny, batch, trials=40, storage=place, **options)


def test_search_goes_on_when_a_node_is_killed(nodes: Any, tmp_path: Path) -> None:
    """It ends with the trials that were asked for, and the scores of one process."""
    killed: list[int] = []

    def on_trial(progress: Progress) -> None:
        taken = ray.available_resources().get("CPU", 0.0) == 0.0
        if progress.done >= 5 and taken and not killed:
            killed.append(progress.done)
            nodes.remove_node(next(iter(nodes.worker_nodes)), allow_graceful=False)

    there = run(tmp_path / "ray", cluster=Cluster(nodes.address), on_trial=on_trial)
    here = run(tmp_path / "one", workers=1)

    assert killed and killed[0] < 35
    assert there.trials == here.trials and there.failed == 0
    assert told(tmp_path / "ray") == told(tmp_path / "one")


def test_candidates_that_fail_are_told_by_kind(nodes: Any, tmp_path: Path) -> None:
    """Nothing but the result is on standard output, whatever Ray has to say of the dead."""
    (tmp_path / "mine.py").write_text(MINE)
    line = f"{SMALL} --space {tmp_path / 'mine.py'}:space --trials 10 --timeout 20 --json --quiet"

    found = call(f"{line} --ray {nodes.address}").json

    assert found["trials"] == 10 == found["scored"] + found["reused"] + found["failed"]
    assert found["failed_by_kind"] == {"killed": 1, "timeout": 1, "error": 1}


def actors() -> set[int]:
    """The processes of workers on this machine."""
    told = [process for process in psutil.process_iter(["cmdline"]) if process.info["cmdline"]]
    return {each.pid for each in told if each.info["cmdline"][0].startswith("ray::Life")}


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
    """All of it at once: told in a line. What was done is kept, and what was asked for is done."""
    (tmp_path / "mine.py").write_text(MINE)
    line = (
        f"{SMALL} --space {tmp_path / 'mine.py'}:slow --trials 40 --quiet --out {tmp_path / 'run'}"
    )
    address = nodes.address
    command = [sys.executable, "-m", "diswot", *shlex.split(line), "--ray", address]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as driver:
        try:
            wait(lambda: len(told_of(tmp_path / "run")) >= 5)
            nodes.shutdown()
            assert driver.wait(120) == 1
        finally:
            driver.kill()
        said = driver.stderr.read() if driver.stderr else ""
    kept = told_of(tmp_path / "run")

    found = call(f"{line} --resume --workers 1 --json").json

    assert f"diswot: the Ray cluster at {address} is lost: " in said
    assert "Traceback" not in said
    assert found["trials"] == 40 and found["failed"] == 0
    assert 5 <= len(kept) < 40 and told_of(tmp_path / "run")[: len(kept)] == kept


def told_of(run: Path) -> list[str]:
    """The ends of trials in a journal, in their order."""
    journal = run / JOURNAL
    lines = journal.read_text().splitlines() if journal.exists() else []
    return [line for line in lines if '"user_attr":{"end":' in line]


def wait(over: Callable[[], bool]) -> None:
    limit = time.monotonic() + 120
    while not over():
        assert time.monotonic() < limit
        time.sleep(0.2)
