"""A search on a Ray cluster of two nodes, one of which is killed; and drivers that are."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import toyspaces
from test_workers import told

from diswot.cluster import Cluster
from diswot.search import Found, Progress, search

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


def run(place: Path, trials: int = 40, **options: Any) -> Found:
    options = {"sampler": "random", "proxy": "diswot", "seed": 3, "threads": 1, **options}
    return search(
        toyspaces.teacher(),
        toyspaces.branching if trials < 14 else toyspaces.tiny,
        toyspaces.batch(),
        trials=trials,
        storage=place,
        **options,
    )


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
