"""What a run folder holds: a search, trainings, rank studies; as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import optuna

from diswot.utils.untrusted import Facts, mapping


@dataclass(frozen=True)
class Candidate:
    """A trial of a search.

    Attributes:
        trial: Its number.
        params: Its choices.
        end: `scores`, `reused`, `rejected`, `failed` or `running`.
        score: Higher is better; None where there is none.
        standard_error: Over the repeats.
        model_params: Trainable parameters.
        macs: Multiply-adds of one image.
        note: Why it was rejected or failed.
        extra: Other costs that the search found: `latency` in seconds, `memory` in bytes.
    """

    trial: int
    params: Facts
    end: str
    score: float | None = None
    standard_error: float | None = None
    model_params: float | None = None
    macs: float | None = None
    note: str = ""
    extra: Mapping[str, float] = field(default_factory=dict)

    def cost(self, name: str) -> float | None:
        """A cost by its name among budgets: params, macs, latency or memory."""
        own = {"params": self.model_params, "macs": self.macs}
        return own[name] if name in own else self.extra.get(name)


@dataclass(frozen=True)
class Search:
    """A search, finished or not.

    Attributes:
        config: How it was told to go.
        found: Its result, as in `found.json`; empty while it is unfinished.
        candidates: By trial; empty where the trials cannot be read.
        study: The trials as Optuna knows them.
        seconds: Over all runs; None if not known.
    """

    config: Facts
    found: Facts
    candidates: tuple[Candidate, ...]
    study: optuna.Study | None
    seconds: float | None

    def verified(self) -> list[Facts]:
        """Students that were distilled briefly: the `student`, its `accuracy` and `epochs`."""
        rows = mapping(self.found.get("verified")).get("trained")
        there = [row for row in (rows if isinstance(rows, list) else []) if isinstance(row, dict)]
        return [row for row in there if isinstance(row.get("student"), dict)]

    def costs(self) -> list[str]:
        """What the score is weighed against: params, and the costs that were objectives."""
        objectives = self.config.get("objectives")
        named = map(str, objectives) if isinstance(objectives, list) else ()
        return list(dict.fromkeys(["params", *(name for name in named if name != "score")]))

    def scored(self) -> list[Candidate]:
        """Different candidates with a score, the best first."""
        there = [c for c in self.candidates if c.end == "scores" and c.score is not None]
        return sorted(there, key=lambda c: (-(c.score or 0.0), c.trial))


@dataclass(frozen=True)
class Training:
    """A training: its folder's name, a row an epoch, and its result where it is finished."""

    name: str
    history: tuple[Mapping[str, float], ...]
    result: Facts

    def seconds(self) -> float:
        """Of the epochs so far, over all runs."""
        return sum(row.get("seconds", 0.0) for row in self.history)


@dataclass(frozen=True)
class Study:
    """A rank study: its folder's name, `rank.json`, and the columns of its scores."""

    name: str
    result: Facts
    accuracies: Mapping[str, list[float | None]]
    scores: Mapping[str, list[float | None]]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """Everything that a run folder holds."""

    folder: Path
    facts: Facts
    search: Search | None
    trainings: tuple[Training, ...]
    studies: tuple[Study, ...]
    notes: tuple[str, ...]
