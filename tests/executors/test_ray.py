"""Workers on a Ray cluster: what is reported of it, and what becomes of workers that die."""

from __future__ import annotations

import importlib.util
import math
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tasks
from tasks import results

from diswot.errors import SearchFailed, UserError
from diswot.executors import ray
from diswot.executors.protocol import Executor, Make
from diswot.executors.ray import (
    EACH,
    RayCluster,
    RayWorker,
    _Liveness,
    most_workers,
    ray_actors,
    shared_versions,
)
from diswot.executors.worker import Payload, Reply, read
from diswot.utils import user_code

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="no ray here")

# Without a cluster


@pytest.mark.parametrize(
    "address", ["local", "auto", "10.0.0.1:6379", "head.example.org:6379", "ray://h:1", "[::1]:80"]
)
def test_addresses(address: str) -> None:
    assert RayCluster(address).address == address


@pytest.mark.parametrize(
    "address",
    [
        "",
        "host",
        "host:",
        ":6379",
        "host:0",
        "host:65536",
        "host:-1",
        "http://host:80",
        "a:b",
        "ray://",
    ],
)
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(UserError, match=r"is no address of a Ray cluster: local, auto, HOST:PORT"):
        RayCluster(address)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cpus": 0.0}, "CPUs on Ray must be above zero, not 0"),
        ({"cpus": math.nan}, "CPUs on Ray must be above zero, not nan"),
        ({"cpus": math.inf}, "CPUs on Ray must be above zero"),
        ({"gpus": -1.0}, "GPUs on Ray are part of one or whole, not -1"),
        ({"gpus": 1.5}, "GPUs on Ray are part of one or whole, not 1.5"),
        ({"gpus": math.nan}, "GPUs on Ray are part of one or whole"),
        ({"gpus": math.inf}, "GPUs on Ray are part of one or whole"),
    ],
)
def test_shares_that_are_none(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        RayCluster(**options)


def test_what_a_worker_takes() -> None:
    assert RayCluster().resources(3) == {"CPU": 3.0}
    assert RayCluster(cpus=0.5, gpus=0.25).resources(3) == {"CPU": 0.5, "GPU": 0.25}


@pytest.mark.parametrize(
    ("resources", "room"),
    [
        ({"CPU": 1.0}, 11),
        ({"CPU": 4.0}, 2),
        ({"CPU": 9.0}, 0),
        ({"CPU": 0.1}, 110),
        ({"CPU": 1.0, "GPU": 1.0}, 2),
        ({"CPU": 1.0, "GPU": 0.5}, 4),
        ({"CPU": 1.0, "GPU": 0.3}, 6),  # three on each GPU: no worker is on two
        ({"CPU": 3.0, "GPU": 0.5}, 2),
        ({"CPU": 1.0, "GPU": 4.0}, 0),
    ],
)
def test_capacity(resources: dict[str, float], room: int) -> None:
    nodes = [
        {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0, "memory": 1e9}},
        {"Alive": True, "Resources": {"CPU": 3.0}},
        {"Alive": True, "Resources": {}},
        {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
    ]

    assert most_workers(nodes, resources) == room


def begun(make: Make) -> tuple[RayWorker, Reply]:
    worker, payload = RayWorker(), pickle.dumps(Payload.pack(make))
    worker.feed(payload[:20])
    worker.feed(payload[20:])
    return worker, read(worker.begin(1, shared_versions()))


def test_a_worker_answers_each_task_with_one_reply() -> None:
    worker, reply = begun(tasks.made)

    assert reply == Reply() and read(worker.perform(("add", 1, 2))) == Reply(3)
    error = read(worker.perform(("stubborn",))).error
    here = f"on {socket.gethostname()}: "
    assert type(error) is SearchFailed and str(error) == f"{here}a worker failed: Stubborn: a and b"


def test_workers_that_cannot_begin() -> None:
    with pytest.raises(UserError, match=f"^on {re.escape(socket.gethostname())}: no such teacher$"):
        raise begun(tasks.unmade)[1].error or AssertionError("it has begun")


def test_workers_of_another_version() -> None:
    reply = read(RayWorker().begin(1, {"diswot": "0.0", "torch": "1.0"}))
    message = r"a worker has \{'diswot': .*\}, the search \{'diswot': '0.0', 'torch': '1.0'\}"
    with pytest.raises(UserError, match=message):
        raise reply.error or AssertionError("it is the same")


def test_versions() -> None:
    import torch

    import diswot

    assert shared_versions() == {
        "diswot": diswot.__version__,
        "torch": torch.__version__.partition("+")[0],
    }


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(UserError, match=r"--ray: needs ray: pip install 'diswot\[ray\]'"),
        ray_actors([tasks.made], RayCluster(), None),
    ):
        pass


@pytest.mark.parametrize(
    ("text", "end"),
    [
        (
            "The actor died unexpectedly before finishing this task.\n\tpid: 45\nThe actor is dead "
            "because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit "
            "detail: Worker unexpectedly exits with a connection error code 2. End of file. Some "
            "common causes include: (1) the process was killed by the OOM killer",
            "Worker unexpectedly exits with a connection error code 2. End of file.",
        ),
        (
            "The actor died because of an error raised in its creation task\n     ^^^^\n"
            "ModuleNotFoundError: No module named 'diswot'\n",
            "ModuleNotFoundError: No module named 'diswot'",
        ),
        ("The node died: " + "x" * 1000, "The node died: " + "x" * 185),
        ("", "RuntimeError"),
    ],
)
def test_how_an_actor_ended(text: str, end: str) -> None:
    assert ray._end(RuntimeError(text)) == end


def test_what_ray_prints_is_not_in_the_output(capsys: pytest.CaptureFixture[str]) -> None:
    with redirect_stdout(ray._WithoutRay(sys.stdout)):
        for name in ("ray_listen_error_messages", "ours"):
            thread = threading.Thread(target=print, args=(name,), name=name)
            thread.start()
            thread.join()
        sys.stdout.flush()

    assert capsys.readouterr().out == "ours\n"


# Connecting


@needs_ray
def test_where_nothing_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        with (
            pytest.raises(UserError, match=rf"^no Ray cluster at {address}: Connection refused; "),
            ray_actors([tasks.made], RayCluster(address), 1),
        ):
            pass


@needs_ray
def test_this_machine_without_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray as library

    def init(**options: Any) -> None:
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr(library, "init", init)
    with (
        pytest.raises(UserError, match=r"^no Ray cluster runs on this machine: `ray start"),
        ray_actors([tasks.made], RayCluster("auto"), 1),
    ):
        pass


@pytest.mark.parametrize(
    ("address", "mode", "hint"),
    [
        ("10.0.0.1:6379", None, True),
        ("10.0.0.1:6379", "token", False),
        ("local", None, False),
    ],
)
def test_a_token_that_may_be_missing(
    address: str, mode: str | None, hint: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    if mode is not None:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    text = ray._refused(address, RuntimeError("it failed"))

    assert text.startswith(f"no Ray cluster at {address}: RuntimeError: it failed")
    assert ("RAY_AUTH_MODE=token" in text) == hint


# Whether a cluster is lost


@contextmanager
def listening(port: int = 0) -> Iterator[tuple[str, int]]:
    with socket.create_server(("127.0.0.1", port)) as server:
        yield server.getsockname()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Stands still unless somebody sleeps."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return now


def test_a_head_that_is_silent_for_long_is_lost(clock: list[float]) -> None:
    with listening() as head:
        liveness = _Liveness("h:1", head, lambda: True)
        liveness.check()
    liveness.check()  # too soon to look again
    assert clock[0] == 1000

    clock[0] += EACH
    with pytest.raises(SearchFailed, match=r"^the Ray cluster at h:1 is lost: its head does not"):
        liveness.check()
    assert 40 <= clock[0] - 1000 <= 40 + 2 * EACH and liveness.lost


def test_a_head_that_comes_back_is_waited_for(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([True, *[False] * 8, True])
    monkeypatch.setattr(ray, "_answers", lambda place: next(answers))
    liveness = _Liveness("h:1", ("h", 1), lambda: True)
    liveness.check()
    clock[0] += EACH
    liveness.check()

    assert clock[0] == 1000 + EACH + 8 * EACH and not liveness.lost


def test_a_cluster_without_nodes_is_lost() -> None:
    with listening() as head:
        liveness = _Liveness("h:1", head, lambda: False)
        with pytest.raises(SearchFailed, match="no node is left"):
            liveness.check()
    assert liveness.lost


def test_what_is_behind_a_proxy_is_not_connected_to() -> None:
    library = SimpleNamespace(nodes=lambda: [{"Alive": False}, {"Alive": True}])
    liveness = ray._liveness(library, "ray://h:1")
    liveness.check()

    assert liveness.head is None and not liveness.lost


# One node


@pytest.fixture(scope="module")
def paths() -> Iterator[None]:
    """Actors import what this process does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
        yield


@pytest.fixture(scope="module")
def one(paths: None) -> Iterator[Executor]:
    with pytest.MonkeyPatch.context() as patch:  # files that other tests loaded import torch
        patch.setattr(user_code, "loaded", tuple)
        with ray_actors([tasks.made], RayCluster(), 1, timeout=60) as executor:
            yield executor


@needs_ray
def test_tasks_are_done(one: Executor) -> None:
    assert results(one, {str(i): ("add", i, 1) for i in range(9)}) == {
        str(i): i + 1 for i in range(9)
    }
    assert results(one, {"a": ("print",)}) == {"a": ("1", False)}  # torch is not imported yet
    assert one.room == 1


@needs_ray
def test_large_payloads(one: Executor) -> None:
    """Of parts that Ray sends with the calls."""
    make = partial(tasks.named, "x" * 1_000_000)
    with ray_actors([make], RayCluster(cpus=0.1), 1) as executor:
        ((name, _),) = results(executor, {"a": 1}).values()

    assert name == "x" * 1_000_000


@needs_ray
def test_nodes_without_room(one: Executor) -> None:
    with (
        pytest.raises(UserError, match=r"no node of the Ray cluster has 1e\+06 CPU for a worker"),
        ray_actors([tasks.made], RayCluster(cpus=1e6), 1),
    ):
        pass


@needs_ray
def test_a_second_cluster(one: Executor) -> None:
    with (
        pytest.raises(UserError, match=r"this process is in the Ray cluster at .*, not h:1"),
        ray_actors([tasks.made], RayCluster("h:1"), 1),
    ):
        pass


@needs_ray
@pytest.mark.slow
def test_actors_that_die(one: Executor, tmp_path: Path) -> None:
    """In a task once or always, by a signal or by themselves; or idle."""
    jobs = {
        "once": ("kill once", str(tmp_path / "mark")),
        "ever": ("kill",),
        "exit": ("exit", 3),
        "who": ("who",),
    }
    found = results(one, jobs)
    os.kill(found["who"], signal.SIGKILL)

    assert found["once"] == "survived" and os.getpid() != found["who"]
    assert [found[name][0] for name in ("ever", "exit")] == ["killed", "killed"]
    assert all(found[name][1].startswith("its process died: ") for name in ("ever", "exit"))
    assert results(one, {str(i): ("add", i) for i in range(6)}) == {str(i): i for i in range(6)}


@needs_ray
@pytest.mark.slow
def test_actors_that_hang(one: Executor) -> None:
    with ray_actors([tasks.made], RayCluster(cpus=0.1), 1, timeout=1) as executor:
        found = results(executor, {"a": ("sleep",), "b": ("add", 1, 2)})

    assert found == {"a": ("timeout", "took longer than 1 s"), "b": 3}


@needs_ray
@pytest.mark.slow
def test_actors_that_cannot_start(one: Executor) -> None:
    for make, error, message in [
        (tasks.unmade, UserError, "no such teacher"),
        (tasks.broken, SearchFailed, "a worker failed: RuntimeError: no such teacher"),
        (tasks.dying, SearchFailed, "a worker process ended too early"),
    ]:
        with pytest.raises(error, match=message), ray_actors([make], RayCluster(cpus=0.1), 1):
            pass


# A node that is lost: in a process of its own, for a process has one cluster

TWO_NODES = """
from ray.cluster_utils import Cluster
from tasks import made
from diswot.executors.ray import RayCluster, ray_actors

HEAD = dict(num_cpus=1, include_dashboard=False)
nodes = Cluster(initialize_head=True, head_node_args=HEAD)
nodes.add_node(num_cpus=1)
nodes.wait_for_nodes()
with ray_actors([made], RayCluster(nodes.address), None) as executor:
    assert len(executor._slots) == 2
    while executor.room < 2:
        executor.wait(0.1)
    for number in range(12):
        executor.submit(number, ("slow add", number, 1))
    found = {{}}
    while len(found) < 5:
        found.update((result.key, result.value) for result in executor.wait())
    {kill}
    while len(found) < 12:
        found.update((result.key, result.value) for result in executor.wait())
assert found == {{number: number + 1 for number in range(12)}}, found
print("all done")
nodes.shutdown()
"""


def lose(kill: str) -> str:
    folders = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", TWO_NODES.format(kill=kill)],
        env={**os.environ, "PYTHONPATH": folders},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.stdout if done.returncode == 0 else done.stderr


@needs_ray
def test_tasks_of_a_node_that_is_killed_are_done_on_another() -> None:
    assert lose("nodes.remove_node(next(iter(nodes.worker_nodes)), allow_graceful=False)") == (
        "all done\n"
    )


@needs_ray
@pytest.mark.slow
def test_tasks_are_done_without_the_node_of_the_driver() -> None:
    assert lose("nodes.head_node.kill_raylet()") == "all done\n"
