"""Time per trial, memory and resume of a long study, with a stub in place of the scoring.

The stub scores every candidate at once, so that the driver, the sampler and Optuna's storage are
measured. `python benchmarks/scale.py --trials 100000` is the whole; each row is a tenth of the
trials. `--ours` shows which bytes of a trial were allocated by our own lines, and which by others,
such as Optuna's; it takes five times as long.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

import optuna
import psutil
from optuna.trial import BaseTrial
from timing import footer
from torch import nn

import diswot
from diswot.cli import console
from diswot.executors.inline import Inline
from diswot.nas.driver import Driver
from diswot.nas.proposal import Proposer
from diswot.nas.samplers import SAMPLERS
from diswot.nas.trial_result import TrialResult
from diswot.spaces.registry import Params
from diswot.storage.run_files import JOURNAL
from diswot.storage.study import open_study, opened

PLACES = 12  # choices of four each
NETWORK = nn.Linear(1, 1)  # of all candidates: building networks is not measured here
OURS = tracemalloc.Filter(True, str(Path(diswot.__file__).parent / "*"))

Row = list[str]


def space(trial: BaseTrial) -> nn.Module:
    for i in range(PLACES):
        trial.suggest_categorical(f"place{i}", list("abcd"))
    return NETWORK


def stub(task: tuple[Params, float | None]) -> TrialResult:
    """Score a candidate by its choices."""
    params, _ = task
    score = sum(choice == "a" for choice in params.values()) / PLACES
    return TrialResult(score, {"stub": [score]}, 1)


def driver_of(storage: Any, sampler: str) -> Driver:
    study = open_study(storage, "scale", SAMPLERS[sampler].make(0), resume=True)
    driver = Driver(study, Proposer(space), Inline(stub))
    driver.resume()
    return driver


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=3_000)
    parser.add_argument("--windows", type=int, default=10)
    parser.add_argument("--sampler", choices=list(SAMPLERS), default="evolution")
    parser.add_argument("--memory", action="store_true", help="no journal")
    parser.add_argument("--ours", action="store_true", help="bytes of a trial, ours and others'")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        place = None if options.memory else Path(folder)
        if options.ours:
            with opened(place) as storage:
                shares(driver_of(storage, options.sampler), options.trials)
            return
        with opened(place) as storage:
            rows, steps = grown(
                driver_of(storage, options.sampler), options.trials, options.windows
            )
        show(options, rows, steps)
        for _ in range(0 if place is None else 2):  # the second one finds the first's line, too
            resumed(place, options.sampler)
    print(footer(1))


def grown(driver: Driver, trials: int, windows: int) -> tuple[list[Row], list[float]]:
    """Return a row a window, and the milliseconds of a trial in each."""
    process, rows, steps = psutil.Process(), [], []
    before = process.memory_info().rss
    for window in range(1, windows + 1):
        upto, had = trials * window // windows, driver.history.within
        start, cpu = time.perf_counter(), time.process_time()
        driver.sample(upto, lambda progress: None)
        wall = (time.perf_counter() - start) / (driver.history.within - had) * 1e3
        busy = (time.process_time() - cpu) / (driver.history.within - had) * 1e3
        size = process.memory_info().rss
        each = (size - before) / driver.history.within / 1e3
        rows.append([f"{upto:,}", f"{wall:.2f}", f"{busy:.2f}", f"{size / 1e6:.0f}", f"{each:.1f}"])
        steps.append(busy)
    return rows, steps


def shares(driver: Driver, trials: int) -> None:
    """Print what is kept of the trials of the second half, by whose lines allocated it."""
    kept: list[tuple[int, int]] = []
    tracemalloc.start()
    for upto in (trials // 2, trials):
        driver.sample(upto, lambda progress: None)
        found = tracemalloc.take_snapshot()
        ours = sum(trace.size for trace in found.filter_traces([OURS]).traces)
        kept.append((ours, sum(trace.size for trace in found.traces)))
    tracemalloc.stop()
    ours, everything = ((b - a) / (trials - trials // 2) for a, b in zip(*kept, strict=True))
    print(f"bytes of a trial: ours {ours:.0f}, others' {everything - ours:.0f}")


def show(options: argparse.Namespace, rows: list[Row], steps: list[float]) -> None:
    kept = "memory" if options.memory else "a journal"
    console.table(
        f"{options.sampler} in {kept}: a trial of the last tenth in milliseconds, memory in MB, KB",
        ["trials", "wall ms", "cpu ms", "MB", "KB a trial"],
        rows,
    )
    print(f"last window over first: {steps[-1] / steps[0]:.2f} (cpu time of a trial)")


def resumed(place: Path, sampler: str) -> None:
    size = (place / JOURNAL).stat().st_size / 1e6
    start, cpu = time.perf_counter(), time.process_time()
    with opened(place) as storage:
        count = driver_of(storage, sampler).history.within
    seconds, busy = time.perf_counter() - start, time.process_time() - cpu
    told = f"resume of {count:,} trials ({size:.0f} MB): {seconds:.1f} s, {busy:.1f} s of cpu"
    print(f"{told}, at a load of {os.getloadavg()[0]:.1f}; target under 30 s for 100,000")


if __name__ == "__main__":
    main()
