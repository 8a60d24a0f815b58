"""Processes that end with those who started them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from diswot.utils import lifetime

SCRIPT = """
import multiprocessing, os, sys, time

def child(platform, follows):
    sys.platform = platform or sys.platform
    from diswot.utils.lifetime import die_with_parent
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
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(script), platform, follows]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None and parent.stdout.readline() == "up\n"
        parent.kill()
        rest, _ = parent.communicate(timeout=30)

    assert rest == ("" if follows == "follows" else "outlived\n")


def no(*args: object) -> None:
    raise AssertionError(f"called with {args}")


def test_process_that_nobody_started_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifetime.ctypes, "CDLL", no)
    monkeypatch.setattr(lifetime.threading, "Thread", no)
    monkeypatch.setattr(os, "_exit", no)

    lifetime.die_with_parent()


@pytest.mark.parametrize("gone", [False, True])
def test_process_whose_parent_died_before_it_asked(
    gone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []
    exits: list[int] = []
    parent = SimpleNamespace(pid=os.getppid() + gone)
    library = SimpleNamespace(prctl=lambda option, signal: asked.append((option, signal)))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(lifetime.multiprocessing, "parent_process", lambda: parent)
    monkeypatch.setattr(lifetime.ctypes, "CDLL", lambda name: library)
    monkeypatch.setattr(os, "_exit", exits.append)

    lifetime.die_with_parent()

    assert asked == [(1, 9)]  # PR_SET_PDEATHSIG, SIGKILL
    assert exits == [1] * gone
