"""What every test runs under."""

from __future__ import annotations

import importlib
import os
import runpy
import shlex
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Ran, Run, without_waiting

from diswot.cli import main
from diswot.exporters.formats import FORMATS


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """One thread, in the processes that tests start too.

    Tiny networks are slower on two threads, and far slower beside another busy process; and sums
    are the same to the last bit only where the number of threads is.
    """
    threads, given = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    yield
    torch.set_num_threads(threads)
    if given is None:
        del os.environ["OMP_NUM_THREADS"]
    else:
        os.environ["OMP_NUM_THREADS"] = given


@pytest.fixture
def imported(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Imports a file of `benchmarks` by name, in the folder where it is run."""
    root = Path(__file__).parents[1]
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    monkeypatch.chdir(root)
    return importlib.import_module


@pytest.fixture(autouse=True, scope="session")
def interruptible() -> None:
    """A shell's job in the background ignores SIGINT, and so would all that it starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def imported_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A student.py that is exported is checked in this process, and not in one of its own."""

    def logits(folder: Path, images: list[torch.Tensor]) -> list[torch.Tensor]:
        network = runpy.run_path(str(folder / "student.py"))["load"]()
        with torch.no_grad():
            return [network(batch) for batch in images]

    monkeypatch.setitem(FORMATS, "safetensors", replace(FORMATS["safetensors"], run=logits))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs a command line in this process; a run without a folder is kept in a new one."""
    monkeypatch.setattr("diswot.runs.folder.RUNS", tmp_path / "runs")

    def run(line: str, *more: str) -> Ran:
        capsys.readouterr()
        status: Any = 0
        try:
            main([*shlex.split(line), *more])
        except SystemExit as stop:
            status = stop.code
        out, err = capsys.readouterr()
        return Ran(status, out, without_waiting(err))

    return run
