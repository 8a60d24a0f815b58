"""How long a search takes, over all runs that go on with it: kept in its study, run by run."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

import optuna
from optuna.trial import FrozenTrial

_RUN = "seconds:"  # of the study's user attributes, with the run's own name behind it
LAG = 0.01  # of a run's time may be lost with a process that is killed; a second at least


@dataclass
class Stopwatch:
    """The time of a run, which is kept on the way: one that is killed has taken its time, too.

    A run in which no trial ends, for the search was done before, does not count.

    What trials of a study took that keeps nothing of its runs is taken for one of them.

    Attributes:
        study: In which it is kept.
        start: Of the run, by `time.perf_counter`.
    """

    study: optuna.Study
    start: float
    _name: str = field(default_factory=lambda: _RUN + uuid.uuid4().hex[:12])
    _kept: float = 0.0

    def __post_init__(self) -> None:
        if runs(self.study):
            return
        before = span(self.study.get_trials(deepcopy=False))
        if before is not None:
            self.study.set_user_attr(f"{_RUN}before", before)

    def look(self) -> None:
        """A trial has ended: keep the time, unless what is kept is hardly less."""
        seconds = time.perf_counter() - self.start
        if not self._kept or seconds - self._kept > max(1.0, LAG * seconds):
            self._keep(seconds)

    def stop(self) -> None:
        """The run is over."""
        if self._kept:
            self._keep(time.perf_counter() - self.start)

    def _keep(self, seconds: float) -> None:
        self.study.set_user_attr(self._name, seconds)
        self._kept = seconds


def runs(study: optuna.Study) -> list[float]:
    """The seconds of each run of a search, as far as they were kept."""
    held = [value for name, value in study.user_attrs.items() if name.startswith(_RUN)]
    numbers = [value for value in held if type(value) in (int, float)]
    return [float(value) for value in numbers if 0 <= value < math.inf]


def span(trials: Sequence[FrozenTrial]) -> float | None:
    """Seconds from the start of the first trial to the end of the last; None if not known."""
    starts = [t.datetime_start for t in trials if t.datetime_start is not None]
    ends = [t.datetime_complete for t in trials if t.datetime_complete is not None]
    return (max(ends) - min(starts)).total_seconds() if starts and ends else None
