"""Several processes, anywhere, in one study: what the others do, and which of them have died.

Each process has a name, which its trials bear, and a counter in the study that it raises every few
seconds. A process whose counter stands still for `GRACE` seconds, by the watch of the one who
looks, is dead, and its open trials are given up. No clock is compared with another's.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from diswot.nas.aging_evolution import Key, key

BEAT, GRACE = 5.0, 45.0  # seconds
OWNER = "owner"
_ALIVE = "alive:"


@dataclass
class Others:
    """The other processes of a study.

    Attributes:
        study: Theirs and ours.
        name: Of this process.
        mine: Numbers of this process's trials that were not looked at yet.
        running: Trials that others have under way.
    """

    study: optuna.Study
    name: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    mine: set[int] = field(default_factory=set)
    running: dict[int, FrozenTrial] = field(default_factory=dict)
    _beats: dict[str | None, tuple[Any, float]] = field(default_factory=dict)
    _read: int = 0
    _looked: float = -BEAT

    @contextmanager
    def present(self) -> Iterator[None]:
        """Let the others know that this process lives."""
        done = threading.Event()
        thread = threading.Thread(target=self._beat, args=(done,), daemon=True)
        self._tell(0)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _beat(self, done: threading.Event) -> None:
        count = 0
        while not done.wait(BEAT):
            count += 1
            try:
                self._tell(count)
            except Exception:  # the next one may get through; the search itself will say it if not
                continue
        self.study._storage.remove_session()

    def _tell(self, count: int) -> None:
        self.study.set_user_attr(_ALIVE + self.name, count)

    def look(self) -> tuple[list[FrozenTrial], list[FrozenTrial]]:
        """See what has happened since the last time.

        Returns:
            Trials of others that ended, and open ones whose process died.
        """
        trials = self.study.get_trials(deepcopy=False)
        recent = [t for t in trials[self._read :] if t.number not in self.mine]
        again = [trials[number] for number in self.running]
        self.mine = {number for number in self.mine if number >= len(trials)}
        self._read = len(trials)
        open_ = {t.number: t for t in (*again, *recent) if t.state == TrialState.RUNNING}
        ended = [t for t in (*again, *recent) if t.state.is_finished()]
        self.running = open_
        lost = [trial for trial in open_.values() if self._dead(trial)]
        for trial in lost:
            del self.running[trial.number]
        return ended, lost

    def _dead(self, trial: FrozenTrial) -> bool:
        """Whether the owner's counter stood still for long; that of a trial of none does."""
        owner, now = trial.user_attrs.get(OWNER), time.monotonic()
        if now - self._looked >= BEAT:
            self._looked = now
            attributes = self.study.user_attrs
            for name in {t.user_attrs.get(OWNER) for t in self.running.values()}:
                count = attributes.get(f"{_ALIVE}{name}")
                if name not in self._beats or self._beats[name][0] != count:
                    self._beats[name] = count, now
        return now - self._beats.setdefault(owner, (None, now))[1] > GRACE

    def examining(self, chosen: Key, before: float) -> int | None:
        """An earlier trial of another process with the same architecture under way."""
        numbers = (n for n, t in self.running.items() if n < before and key(t.params) == chosen)
        return min(numbers, default=None)
