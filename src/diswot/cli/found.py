"""What `diswot search` leaves and says of what it found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from diswot.cli import budgets, console
from diswot.runs import folder
from diswot.storage.run_files import FRONT

if TYPE_CHECKING:
    from diswot.costs.latency import Setting
    from diswot.nas.result import SearchResult
    from diswot.training.verify import Verified


def result(found: SearchResult, tried: Verified | None, how: Setting | None) -> dict[str, Any]:
    """As plain values; of students that were verified the most accurate is the best."""
    told = {**found.as_dict(), "latency_setting": how and how.facts}
    if tried is not None:
        verified = tried.as_dict()
        best = verified["best"]
        told |= {"verified": verified}
        told |= {"best": {**best["student"], "accuracy": best["accuracy"]}}
    return told


def keep(out: Path, told: dict[str, Any], proxy: str) -> None:
    """Write a result into a run folder, and draw its front, if it has one."""
    folder.write_found(out, told)
    if told["front"]:
        from diswot.reports import plots

        plots.save(plots.front(plots.front_data(told, proxy)), out / FRONT)


def show(told: dict[str, Any], proxy: str) -> None:
    """The front, or else the best."""
    front = told["front"]
    students = front or told["top"]
    costs = budgets.columns(students)
    rows = []
    for place, student in enumerate(students):
        cells = [console.show_params(student["params"]), f"{student['score']:.5g}"]
        rows.append([str(place), *cells, *(column[place] for column in costs.values())])
    counts = ", ".join(f"{told[n]} {n}" for n in ("scored", "reused", "rejected", "failed"))
    of = f"front of {', '.join(told['objectives'])}" if front else "best"
    title = f"{of} of {told['trials']} students ({counts}) in {told['seconds']:.1f} s"
    console.table(title, ["", "student", proxy, *costs], rows, text=2)


def remarks(told: dict[str, Any], trials: int, how: Setting | None) -> list[str]:
    """What to know beside the table.

    Args:
        told: The result.
        trials: How many were asked for.
        how: How latency was measured, if it was.
    """
    lines = budgets.notes(told["front"] or told["top"], how)
    if told["failed"]:
        kinds = ", ".join(f"{count} {kind}" for kind, count in told["failed_by_kind"].items())
        reason = max(told["failures"], key=told["failures"].__getitem__)
        lines.append(f"{told['failed']} failed ({kinds}), such as: {reason}")
    if told["trials"] < trials and not told["exhaustive"]:
        lines.append(f"stopped at {told['trials']} trials: nothing new fits the budget")
    return lines


def kept_in(out: Path | None, storage: str | None, settings: str, *, trained: bool) -> list[str]:
    """Where the search is kept, and the command that comes after it, with its settings."""
    if out is not None:
        weights = "" if trained else " --teacher-weights FILE, the trained teacher's"
        return [f"kept in {out}; next: diswot distill {out}{settings}{weights}"]
    return [] if storage else ["not kept: --out FOLDER keeps it, to distill, report and export"]
