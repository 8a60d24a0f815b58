"""Workers that are processes: how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tasks import dying, made, work

from diswot.executors.packed import Packed
from diswot.executors.processes import Pipes
from diswot.executors.protocol import Message

DRIVER = """
import time
from tasks import made, work
from diswot.workers import Packed, Pipes, Pool
with Pool(Pipes([Packed.pack(made, work)]), 2) as crew:
    crew.put("a", ("who",))
    crew.put("b", ("sleep",))
    while not (outcomes := crew.wait(lambda key, question: None)):
        pass
    workers = [worker.handle.process.pid for worker in crew._workers]
    print(*workers, flush=True)
    time.sleep(60)
"""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_workers_idle_or_busy_die_with_their_driver() -> None:
    folders = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    environment = {**os.environ, "PYTHONPATH": folders}
    command = [sys.executable, "-c", DRIVER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as driver:
        assert driver.stdout is not None
        pids = [int(pid) for pid in driver.stdout.readline().split()]
        assert len(pids) == 2 and all(map(alive, pids))
        driver.kill()

    limit = time.monotonic() + 20
    while any(map(alive, pids)) and time.monotonic() < limit:
        time.sleep(0.05)
    assert not any(map(alive, pids))


def next_said(pipes: Pipes, handle: Any) -> Message | None:
    ((_, message),) = pipes.receive([handle], 60)
    return message


def test_how_a_process_ended() -> None:
    pipes = Pipes([Packed.pack(made, work), Packed.pack(dying, work)])
    killed, ended = pipes.start(0), pipes.start(1)
    assert next_said(pipes, killed) == ("ready", None)
    os.kill(killed.process.pid or 0, signal.SIGKILL)

    assert next_said(pipes, killed) is None and pipes.bury(killed) == "SIGKILL"
    assert next_said(pipes, ended) is None and pipes.bury(ended) == "exit status 9"
    pipes.send(ended, ("task", ("add", 1)))  # that it is dead is for `receive` to say


def test_a_process_that_closed_its_pipe_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diswot.executors.processes.GRACE", 0.1)
    pipes = Pipes([Packed.pack(made, work)])
    handle = pipes.start(0)
    assert next_said(pipes, handle) == ("ready", None)
    pipes.send(handle, ("task", ("sleep",)))

    assert pipes.bury(handle) == "SIGKILL" and not handle.process.is_alive()
