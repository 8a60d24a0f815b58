"""Workers on a Ray cluster: what is said of it, and searches whose nodes and workers die."""

from __future__ import annotations

import importlib.util
import math
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import tasks
from tasks import results

from diswot.errors import SearchFailed, UserError
from diswot.executors import ray
from diswot.executors.packed import Make, Packed
from diswot.executors.pool import Pool
from diswot.executors.ray import Cluster, Life, actors, capacity, versions

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="no ray here")

# Without a cluster


@pytest.mark.parametrize(
    "address", ["local", "auto", "10.0.0.1:6379", "head.example.org:6379", "ray://h:1", "[::1]:80"]
)
def test_addresses(address: str) -> None:
    assert Cluster(address).address == address


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
        Cluster(address)


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
def test_shares_that_are_none(options: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Cluster(**options)


def test_what_a_worker_asks_for() -> None:
    assert Cluster().asks(3) == {"CPU": 3.0}
    assert Cluster(cpus=0.5, gpus=0.25).asks(3) == {"CPU": 0.5, "GPU": 0.25}


@pytest.mark.parametrize(
    ("asks", "room"),
    [
        ({"CPU": 1.0}, 11),
        ({"CPU": 4.0}, 2),
        ({"CPU": 9.0}, 0),
        ({"CPU": 0.1}, 110),
        ({"CPU": 1.0, "GPU": 1.0}, 2),
        ({"CPU": 1.0, "GPU": 0.5}, 4),
        ({"CPU": 1.0, "GPU": 0.3}, 6),  # three on each card: none is on two
        ({"CPU": 3.0, "GPU": 0.5}, 2),
        ({"CPU": 1.0, "GPU": 4.0}, 0),
    ],
)
def test_capacity(asks: dict[str, float], room: int) -> None:
    nodes = [
        {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0, "memory": 1e9}},
        {"Alive": True, "Resources": {"CPU": 3.0}},
        {"Alive": True, "Resources": {}},
        {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
    ]

    assert capacity(nodes, asks) == room


def packed(make: Make = tasks.made) -> Packed:
    return Packed.pack(make, tasks.work)


def test_an_actor_answers_each_message_with_one() -> None:
    life = Life()

    assert life.begin(packed(), 1, versions()) == ("ready", None)
    assert life.exchange(("task", ("add", 1, 2))) == ("done", 3)
    assert life.exchange(("task", ("ask", "a", "b"))) == ("ask", "a")
    assert life.exchange(("answer", 1)) == ("ask", "b")
    assert life.exchange(("answer", 2)) == ("done", [1, 2])
    what, error = life.exchange(("task", ("raise",)))
    assert what == "failed" and isinstance(error, SearchFailed)


def test_an_actor_that_cannot_begin() -> None:
    for theirs, make, message in [
        (
            {"diswot": "0.0", "torch": "1.0"},
            tasks.made,
            "a worker has .*, the search {'diswot': '0.0'",
        ),
        (versions(), tasks.unmade, f"^on {re.escape(socket.gethostname())}: no such teacher$"),
    ]:
        what, error = Life().begin(packed(make), 1, theirs)
        with pytest.raises(UserError, match=message):
            raise error
        assert what == "failed"


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(UserError, match=r"--ray: needs ray: pip install 'diswot\[ray\]'"),
        actors([tasks.made], tasks.work, 1, Cluster(), None),
    ):
        pass


@pytest.mark.parametrize(
    ("said", "told"),
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
def test_how_an_actor_ended(said: str, told: str) -> None:
    assert ray._ended(RuntimeError(said)) == told


# One node


@pytest.fixture(scope="module")
def paths() -> Iterator[None]:
    """Actors import what this process does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
        yield


@pytest.fixture(scope="module")
def one(paths: None) -> Iterator[Pool]:
    with (
        actors([tasks.made], tasks.work, 1, Cluster(), 1) as (transport, _),
        Pool(transport, 1, timeout=60) as pool,
    ):
        yield pool


@needs_ray
def test_tasks_are_done_and_questions_answered(one: Pool) -> None:
    jobs = {str(i): ("add", i, 1) for i in range(9)} | {"asking": ("ask", 1, "b")}

    found = results(one, jobs, lambda key, question: (key, question))

    assert found == {
        **{str(i): i + 1 for i in range(9)},
        "asking": [("asking", 1), ("asking", "b")],
    }


def test_what_ray_says_is_not_in_the_output(capsys: pytest.CaptureFixture[str]) -> None:
    with redirect_stdout(ray._WithoutRay(sys.stdout)):
        for name in ("ray_listen_error_messages", "ours"):
            thread = threading.Thread(target=print, args=(name,), name=name)
            thread.start()
            thread.join()
        sys.stdout.flush()

    assert capsys.readouterr().out == "ours\n"


@needs_ray
@pytest.mark.slow
def test_actors_that_die(one: Pool, tmp_path: Path) -> None:
    """In a task once or always, by a signal or by themselves; or idle."""
    jobs = {
        "once": ("kill once", str(tmp_path / "mark")),
        "ever": ("kill",),
        "exit": ("exit",),
        "who": ("who",),
    }
    found = results(one, jobs)
    os.kill(found["who"], signal.SIGKILL)

    assert found["once"] == "survived" and os.getpid() != found["who"]
    assert [found[name][0] for name in ("ever", "exit")] == ["killed", "killed"]
    assert all(found[name][1].startswith("its process died: ") for name in ("ever", "exit"))
    assert results(one, {str(i): ("add", i) for i in range(6)}) == {str(i): i for i in range(6)}
