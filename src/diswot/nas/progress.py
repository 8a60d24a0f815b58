"""The progress of a search: candidates, the best score, proposals that led nowhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from diswot.utils.progress import Advance


@dataclass(frozen=True)
class SearchProgress:
    """How far a search is: before the first trial, and after each.

    Attributes:
        done: Candidates within the budget that have ended.
        total: Candidates asked for.
        best: Highest score; None before the first.
        rejected: Proposals outside the budget so far.
        stalled: Proposals in a row that gave no new student within the budget, and none nearer.
    """

    done: int
    total: int
    best: float | None
    rejected: int = 0
    stalled: int = 0


Callback = Callable[[SearchProgress], None]


def show_progress(advance: Advance, progress: SearchProgress) -> None:
    """Move the progress bar."""
    notes = [] if progress.best is None else [f"best {progress.best:.4f}"]
    if progress.rejected:
        notes.append(f"{progress.rejected:,} outside the budget")
    if progress.stalled >= 10:
        notes.append(f"no new student in the last {progress.stalled:,} proposals")
    advance("scoring", progress.done, progress.total, ", ".join(notes))
