"""Candidates a second of several worker processes over one, each on one thread.

The time is from the first trial told to the last: starting processes is left out. Runs of one and
of several alternate, so that a noisy machine is noisy for both. `make bench` runs it.
"""

from __future__ import annotations

import argparse
import time

import optuna
from timing import footer

from diswot.cli import console
from diswot.data.registry import create_dataset
from diswot.models.registry import create_teacher
from diswot.nas.api import search
from diswot.nas.compute import Compute
from diswot.nas.progress import SearchProgress
from diswot.spaces.registry import create_space


def rate(workers: int, trials: int, device: str = "cpu", size: int = 64) -> float:
    """Candidates a second of a random search of S0 with the default score."""
    marks: list[tuple[float, int]] = []

    def keep(progress: SearchProgress) -> None:
        marks.append((time.perf_counter(), progress.done))

    search(
        create_teacher("resnet20", 100),
        create_space("s0", 100),
        create_dataset("noise", num_classes=100).batch(size),
        n_trials=trials,
        compute=Compute(workers, devices=(device,)),
        callbacks=[keep],
    )
    first = next(mark for mark in marks if mark[1] >= 1)
    return (marks[-1][1] - first[1]) / (marks[-1][0] - first[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rows = []
    for turn in range(options.turns):
        one, several = (rate(count, options.trials) for count in (1, options.workers))
        rows.append([str(turn + 1), f"{one:.2f}", f"{several:.2f}", f"{several / one:.2f}"])
    console.table(
        f"(d) candidates a second, {options.workers} workers over one; target 1.7 for 2 on 2 cores",
        ["turn", "one worker", f"{options.workers} workers", "ratio"],
        rows,
    )
    print(footer(options.turns))


if __name__ == "__main__":
    main()
