"""Worker processes: real tasks, and real faults."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tasks import broken, dying, made, named, results, seldom, unmade

from diswot.errors import SearchFailed, UserError
from diswot.executors import processes
from diswot.executors.pool import Pool
from diswot.executors.processes import ProcessBackend, process_pool
from diswot.executors.protocol import Executor
from diswot.executors.worker import Payload, Reply
from diswot.utils import user_code

DRIVER = """
from tasks import made
from diswot.executors.processes import process_pool
with process_pool([made], 2) as pool:
    pool.submit("a", ("who",))
    pool.submit("b", ("sleep",))
    while not pool.wait():
        pass
    print(*[slot.worker.process.pid for slot in pool._slots], flush=True)
    {then}
"""


@pytest.fixture(scope="module")
def two() -> Iterator[Executor]:
    with pytest.MonkeyPatch.context() as patch:  # files that other tests loaded import torch
        patch.setattr(user_code, "loaded", tuple)
        with process_pool([made], 2) as pool:
            yield pool


def test_tasks_are_done(two: Executor) -> None:
    tasks = {str(i): ("add", i, 1) for i in range(9)}

    assert results(two, tasks) == {str(i): i + 1 for i in range(9)}


def test_each_worker_is_made_once(two: Executor) -> None:
    found = results(two, {str(i): ("who",) for i in range(20)})

    assert 1 <= len(set(found.values())) <= 2 and os.getpid() not in found.values()


def test_workers_are_made_in_turn() -> None:
    with process_pool([partial(named, "x"), partial(named, "y")], 3) as pool:
        limit = time.monotonic() + 60
        names: list[str] = []
        while sorted(set(names)) != ["x", "y"] and time.monotonic() < limit:
            names += [name for name, _ in results(pool, dict.fromkeys("abcdef", 1)).values()]

    assert set(names) == {"x", "y"}


def test_task_whose_worker_is_killed_is_tried_again(two: Executor, tmp_path: Path) -> None:
    tasks = {"a": ("kill once", str(tmp_path / "mark")), "b": ("add", 1, 2)}

    assert results(two, tasks) == {"a": "survived", "b": 3}


def test_worker_that_is_killed_while_idle_is_replaced(two: Executor) -> None:
    (before,) = set(results(two, {"a": ("who",)}).values())
    os.kill(before, signal.SIGKILL)

    found = results(two, {str(i): ("add", i) for i in range(6)})

    assert found == {str(i): i for i in range(6)}


def test_task_that_kills_its_worker_fails_and_the_others_are_done(two: Executor) -> None:
    tasks = {"a": ("kill",), "b": ("add", 1, 2), "c": ("exit", 3), "d": ("exit", 0)}

    assert results(two, tasks) == {
        "a": ("killed", "its process died: SIGKILL"),
        "b": 3,
        "c": ("killed", "its process died: exit status 3"),
        "d": ("killed", "its process died: exit status 0"),
    }


def test_task_that_hangs_fails_and_the_others_are_done() -> None:
    with process_pool([made], 1, timeout=0.5) as pool:
        found = results(pool, {"a": ("sleep",), "b": ("add", 1, 2)})

    assert found == {"a": ("timeout", "took longer than 0.5 s"), "b": 3}


def test_clock_that_jumps_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    jumps = iter(range(0, 10**9, 10**6))
    monkeypatch.setattr(time, "time", lambda: 1e9 + next(jumps))
    with process_pool([made], 1, timeout=30) as pool:
        assert results(pool, {"a": ("add", 1), "b": ("add", 2)}) == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (unmade, UserError, "^no such teacher$"),
        (broken, SearchFailed, "^a worker failed: RuntimeError: no such teacher$"),
        (dying, SearchFailed, r"a worker process ended too early \(exit status 9\)"),
    ],
)
def test_workers_that_cannot_start(make: Any, error: type[Exception], message: str) -> None:
    threads = threading.active_count()
    with pytest.raises(error, match=message), process_pool([make], 1):
        pass

    assert threading.active_count() == threads


def test_worker_that_was_ready_before_is_started_more_often(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    starts.mkdir()
    task = {"a": ("kill once", str(tmp_path / "mark"))}
    with process_pool([partial(seldom, str(starts))], 1) as pool:
        assert results(pool, task) == {"a": "survived"}

    assert len(list(starts.iterdir())) == 6


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (("raise", RuntimeError("a mistake of ours")), "failed: RuntimeError: a mistake of ours"),
        (("stubborn",), "a worker failed: Stubborn: a and b"),
        (("return", "lambda"), "a worker failed: .*pickle"),
        (("return", "stubborn"), "cannot be unpickled: TypeError"),
    ],
)
def test_errors_of_tasks_end_the_search(task: Any, message: str) -> None:
    with pytest.raises(SearchFailed, match=message), process_pool([made], 1) as pool:
        results(pool, {"a": task})


def run(then: str) -> subprocess.Popen[str]:
    folders = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    environment = {**os.environ, "PYTHONPATH": folders}
    command = [sys.executable, "-c", DRIVER.format(then=then)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize(
    ("then", "end"),
    [
        ("import time; time.sleep(60)", signal.SIGKILL),
        ("import time; time.sleep(60)", signal.SIGTERM),
        ("raise RuntimeError", None),
        ("import os; os._exit(0)", None),
    ],
)
def test_workers_idle_or_busy_end_with_their_driver(then: str, end: int | None) -> None:
    with run(then) as driver:
        assert driver.stdout is not None
        pids = [int(pid) for pid in driver.stdout.readline().split()]
        assert len(pids) == 2
        if end is not None:
            assert all(map(alive, pids))
            driver.send_signal(end)

    limit = time.monotonic() + 20
    while any(map(alive, pids)) and time.monotonic() < limit:
        time.sleep(0.05)
    assert not any(map(alive, pids))


def test_workers_ignore_the_keyboard(two: Executor) -> None:
    (pid,) = set(results(two, {"a": ("who",)}).values())
    os.kill(pid, signal.SIGINT)

    assert pid in results(two, {str(i): ("who",) for i in range(20)}).values()


def test_standard_output_is_the_drivers(capfd: pytest.CaptureFixture[str]) -> None:
    with process_pool([made], 1, threads=3) as pool:
        assert results(pool, {"a": ("print",)}) == {"a": ("3", False)}

    out, error = capfd.readouterr()
    assert out == "" and "from Python\n" in error and "from elsewhere\n" in error


def received(backend: ProcessBackend, worker: Any) -> Reply:
    ((_, reply),) = backend.receive([worker], 60)
    return reply


def test_how_a_process_ended() -> None:
    backend = ProcessBackend([Payload.pack(made), Payload.pack(dying)])
    killed, ended = backend.start(0), backend.start(1)
    assert received(backend, killed) == Reply()
    os.kill(killed.process.pid or 0, signal.SIGKILL)

    assert received(backend, killed) == Reply(death="SIGKILL")
    assert received(backend, ended) == Reply(death="exit status 9")
    backend.send(ended, ("add", 1))  # `receive` reports that it is dead
    backend.kill(ended)
    backend.kill(killed)


def test_worker_killed_while_it_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the beginning of its reply has arrived."""
    backend = ProcessBackend([Payload.pack(made)])
    worker = backend.start(0)
    ours, end = os.pipe()
    os.write(end, (1000).to_bytes(4, "big") + b"some")
    os.close(end)
    assert received(backend, worker) == Reply()
    backend.send(worker, ("sleep",))
    time.sleep(0.2)
    os.dup2(ours, worker.pipe.fileno())
    os.close(ours)
    monkeypatch.setattr("diswot.executors.processes.GRACE", 0.1)

    assert received(backend, worker) == Reply(death="SIGKILL")
    assert not worker.process.is_alive()
    backend.kill(worker)


def test_the_pool_is_an_executor(two: Executor) -> None:
    assert isinstance(two, Pool) and two.room <= 2


CHILD = """
import multiprocessing, os, sys, time

def child(platform, follows):
    sys.platform = platform or sys.platform
    from diswot.executors.processes import die_with_parent
    parent = os.getppid()
    if follows:
        die_with_parent()
    print("up", flush=True)
    while os.getppid() == parent:
        time.sleep(0.02)
    time.sleep(0.5)
    print("outlived", flush=True)

if __name__ == "__main__":
    spawn = multiprocessing.get_context("spawn")
    arguments = sys.argv[1], sys.argv[2] == "follows"
    spawn.Process(target=child, args=arguments, daemon=True).start()
    time.sleep(60)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal")
@pytest.mark.parametrize(
    ("platform", "follows"), [("", "follows"), ("another", "follows"), ("", "stays")]
)
def test_child_of_a_killed_process_ends(platform: str, follows: str, tmp_path: Path) -> None:
    """Its output ends when nobody is left to write to it; the third process shows what would."""
    script = tmp_path / "script.py"
    script.write_text(CHILD)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(script), platform, follows]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None and parent.stdout.readline() == "up\n"
        parent.kill()
        rest, _ = parent.communicate(timeout=30)

    assert rest == ("" if follows == "follows" else "outlived\n")


@pytest.mark.parametrize("gone", [False, True])
def test_process_whose_parent_died_before_it_asked(
    gone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []
    exits: list[int] = []
    parent = SimpleNamespace(pid=os.getppid() + gone)
    library = SimpleNamespace(prctl=lambda option, signal: asked.append((option, signal)))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(processes.multiprocessing, "parent_process", lambda: parent)
    monkeypatch.setattr(processes.ctypes, "CDLL", lambda name: library)
    monkeypatch.setattr(os, "_exit", exits.append)

    processes.die_with_parent()

    assert asked == [(1, 9)]  # PR_SET_PDEATHSIG, SIGKILL
    assert exits == [1] * gone
