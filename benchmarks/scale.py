"""Time per trial, memory and resume of a long study, with a stub in place of the scoring.

The stub says yes to every candidate at once, so that what is measured is the loop, the sampler and
Optuna's storage. `python benchmarks/scale.py --trials 100000` is the whole; a tenth of the trials
is looked at at a time. `--ours` tells which bytes of a trial were allocated by our own lines, and
which by others, such as Optuna's; it takes five times as long.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import tracemalloc
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import psutil
from timing import footer

import diswot
from diswot.cli import console
from diswot.executors.pool import Answer, Outcome
from diswot.nas.driver import Loop
from diswot.nas.evaluator import Asked
from diswot.nas.samplers import SAMPLERS
from diswot.storage.run_files import JOURNAL
from diswot.storage.study import open_study, opened

PLACES = 12  # choices of four each
OURS = tracemalloc.Filter(True, str(Path(diswot.__file__).parent / "*"))

Row = list[str]


@dataclass
class Stub:
    """Draws the choices of a candidate, and scores it by them."""

    _tasks: list[tuple[Hashable, Any]] = field(default_factory=list)

    @property
    def room(self) -> int:
        return 1 - len(self._tasks)

    def put(self, key: Hashable, content: Any, *, patience: int = 1) -> None:
        self._tasks.append((key, content))

    def wait(self, answer: Answer, seconds: float | None = None) -> list[Outcome]:
        key, (_, number) = self._tasks.pop()
        trial = Asked(lambda question: answer(key, question), number)
        chosen = [trial.suggest_categorical(f"place{i}", list("abcd")) for i in range(PLACES)]
        before = answer(key, ("judge", dict(trial.params)))
        score = sum(choice == "a" for choice in chosen) / PLACES
        end = {"score": score, "scores": {"stub": [score]}, "model_params": 1, "costs": {}}
        return [Outcome(key, before or end)]


def loop_of(storage: Any, sampler: str) -> Loop:
    study = open_study(storage, "scale", SAMPLERS[sampler](0), resume=True)
    loop = Loop(study, Stub())
    loop.recall()
    return loop


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
                shares(loop_of(storage, options.sampler), options.trials)
            return
        with opened(place) as storage:
            rows, steps = grown(loop_of(storage, options.sampler), options.trials, options.windows)
        show(options, rows, steps)
        for _ in range(0 if place is None else 2):  # the second one finds the first's line, too
            resumed(place, options.sampler)
    print(footer(1))


def grown(loop: Loop, trials: int, windows: int) -> tuple[list[Row], list[float]]:
    """A row a window, and the milliseconds of a trial in each."""
    process, rows, steps = psutil.Process(), [], []
    before = process.memory_info().rss
    for window in range(1, windows + 1):
        upto, had = trials * window // windows, loop.trials()
        start, cpu = time.perf_counter(), time.process_time()
        loop.sample(upto, lambda progress: None)
        wall = (time.perf_counter() - start) / (loop.trials() - had) * 1e3
        busy = (time.process_time() - cpu) / (loop.trials() - had) * 1e3
        size = process.memory_info().rss
        each = (size - before) / loop.trials() / 1e3
        rows.append([f"{upto:,}", f"{wall:.2f}", f"{busy:.2f}", f"{size / 1e6:.0f}", f"{each:.1f}"])
        steps.append(busy)
    return rows, steps


def shares(loop: Loop, trials: int) -> None:
    """Say what was kept of the trials of the second half, by whose lines allocated it."""
    kept: list[tuple[int, int]] = []
    tracemalloc.start()
    for upto in (trials // 2, trials):
        loop.sample(upto, lambda progress: None)
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
        count = loop_of(storage, sampler).trials()
    seconds, busy = time.perf_counter() - start, time.process_time() - cpu
    told = f"resume of {count:,} trials ({size:.0f} MB): {seconds:.1f} s, {busy:.1f} s of cpu"
    print(f"{told}, at a load of {os.getloadavg()[0]:.1f}; target under 30 s for 100,000")


if __name__ == "__main__":
    main()
