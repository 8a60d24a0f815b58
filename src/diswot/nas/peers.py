"""Other processes of one study: what they have done, and which of them have died.

Each process has a name, which its trials bear, and a heartbeat: a counter in the study that it
raises every few seconds. A process whose counter stands still for `GRACE` seconds, by the clock of
the process that looks, is dead, and its open trials are given up. No two clocks are compared.
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

from diswot.storage.compat import storage_of

HEARTBEAT, GRACE = 5.0, 45.0  # seconds
OWNER = "owner"  # user attribute of a trial
_ALIVE = "alive:"  # prefix of a user attribute of the study


@dataclass
class Peers:
    """The other processes of a study.

    Attributes:
        study: The study that all processes share.
        name: Name of this process.
        own: Numbers of trials of this process that were not read yet.
        running: Open trials of other processes, by number.
    """

    study: optuna.Study
    name: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    own: set[int] = field(default_factory=set)
    running: dict[int, FrozenTrial] = field(default_factory=dict)
    _beats: dict[str | int, tuple[Any, float]] = field(default_factory=dict)
    _read: int = 0
    _looked: float = -HEARTBEAT

    @contextmanager
    def heartbeat(self) -> Iterator[None]:
        """Send heartbeats from a thread."""
        done = threading.Event()
        thread = threading.Thread(target=self._beat, args=(done,), daemon=True)
        self._send(0)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _beat(self, done: threading.Event) -> None:
        count = 0
        while not done.wait(HEARTBEAT):
            count += 1
            try:
                self._send(count)
            except Exception:  # the next heartbeat may get through; else the search itself fails
                continue
        storage_of(self.study).remove_session()

    def _send(self, count: int) -> None:
        self.study.set_user_attr(_ALIVE + self.name, count)

    def claim(self, trial: optuna.Trial) -> None:
        """Mark a trial as one of this process.

        Raises:
            UpdateFinishedTrialError: Another process gave the trial up.
        """
        self.own.add(trial.number)
        trial.set_user_attr(OWNER, self.name)

    def look(self) -> tuple[list[FrozenTrial], list[FrozenTrial]]:
        """Read what has happened since the last look.

        Returns:
            Trials of other processes that ended, and open ones whose process died.
        """
        trials = self.study.get_trials(deepcopy=False)
        recent = [t for t in trials[self._read :] if t.number not in self.own]
        again = [trials[number] for number in self.running]
        self.own = {number for number in self.own if number >= len(trials)}
        self._read = len(trials)
        self.running = {t.number: t for t in (*again, *recent) if t.state == TrialState.RUNNING}
        ended = [t for t in (*again, *recent) if t.state.is_finished()]
        lost = [trial for trial in self.running.values() if self._dead(trial)]
        for trial in lost:
            del self.running[trial.number]
        return ended, lost

    def _dead(self, trial: FrozenTrial) -> bool:
        """Return whether the heartbeat of a trial's process has stopped for long.

        A trial without an owner yet has a clock of its own, which starts when it is first seen.
        """
        now = time.monotonic()
        if now - self._looked >= HEARTBEAT:
            self._looked = now
            for name, count in self.study.user_attrs.items():
                if name.startswith(_ALIVE) and self._beats.get(name, (None,))[0] != count:
                    self._beats[name] = count, now
        owner = trial.user_attrs.get(OWNER)
        key = trial.number if owner is None else f"{_ALIVE}{owner}"
        return now - self._beats.setdefault(key, (None, now))[1] > GRACE
