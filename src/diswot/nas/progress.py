"""The progress of a search: candidates, the best score, proposals that led nowhere."""

from __future__ import annotations

from diswot.nas.driver import SearchProgress
from diswot.utils.progress import Advance


def show_progress(advance: Advance, progress: SearchProgress) -> None:
    """Move the progress bar."""
    notes = [] if progress.best is None else [f"best {progress.best:.4f}"]
    if progress.rejected:
        notes.append(f"{progress.rejected:,} outside the budget")
    if progress.stalled >= 10:
        notes.append(f"no new student in the last {progress.stalled:,} proposals")
    advance("scoring", progress.done, progress.total, ", ".join(notes))
