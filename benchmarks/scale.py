"""Time per trial, memory and resume of a long study, with a stub in place of the scoring.

The stub says yes to every candidate at once, so that what is measured is the loop, the sampler and
Optuna's storage. `python benchmarks/scale.py --trials 100000`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import psutil
from timing import footer

from diswot import console
from diswot.examiner import Asked
from diswot.loop import Loop
from diswot.samplers import SAMPLERS
from diswot.storage import open_study, opened
from diswot.workers import Answer, Outcome

PLACES = 12  # choices of four each


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


def loop_of(place: Path, storage: Any, sampler: str) -> Loop:
    study = open_study(storage, "scale", SAMPLERS[sampler](0), resume=True)
    loop = Loop(study, Stub())
    loop.recall()
    return loop


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--windows", type=int, default=10)
    parser.add_argument("--sampler", choices=list(SAMPLERS), default="evolution")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    process, rows = psutil.Process(), []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        with opened(place) as storage:
            loop = loop_of(place, storage, options.sampler)
            for window in range(1, options.windows + 1):
                upto = options.trials * window // options.windows
                start, cpu, before = time.perf_counter(), time.process_time(), loop.trials()
                loop.sample(upto, lambda progress: None)
                done = loop.trials() - before
                wall = (time.perf_counter() - start) / done
                busy = (time.process_time() - cpu) / done
                size = process.memory_info().rss / 1e6
                rows.append([f"{upto:,}", f"{wall * 1e3:.2f}", f"{busy * 1e3:.2f}", f"{size:.0f}"])
        start = time.perf_counter()
        with opened(place) as storage:
            again = loop_of(place, storage, options.sampler).trials()
        seconds = time.perf_counter() - start
    console.table(
        f"{options.sampler}: a trial of a study of so many, in milliseconds, and MB of memory",
        ["trials", "wall ms", "cpu ms", "MB"],
        rows,
    )
    print(f"resume of {again:,} trials: {seconds:.1f} s; target under 30 s for 100,000")
    print(footer(1))


if __name__ == "__main__":
    main()
