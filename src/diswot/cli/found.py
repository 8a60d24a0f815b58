"""The result of `diswot search`: in the run folder, on the screen, as notes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from diswot.cli import budgets, console
from diswot.storage.run_files import FOUND, FRONT, LATENCIES
from diswot.utils.units import show_number, show_params

if TYPE_CHECKING:
    from diswot.costs.latency import Setting
    from diswot.nas.result import SearchResult
    from diswot.training.verified import Verified

NO_LIMIT = (
    "no limit was given: most scores grow with the network, so the best may just be the largest "
    "(--max-params, --max-macs, --max-memory, --max-latency)"
)


def plain_result(
    found: SearchResult,
    tried: Verified | None,
    how: Setting | None,
    like: Mapping[str, Any] | None,
    teacher_latency: float | None,
) -> dict[str, Any]:
    """Return the result as plain values; the most accurate verified student becomes the best."""
    result = {**found.as_dict(), "latency_setting": how and how.facts, "like": like}
    if teacher_latency is not None:
        result |= {"teacher_latency": teacher_latency}
    if tried is not None:
        verified = tried.as_dict()
        best = verified["best"]
        result |= {"verified": verified}
        result |= {"best": {**best["student"], "accuracy": best["accuracy"]}}
    return result


def keep(out: Path | None, result: dict[str, Any], proxy: str) -> None:
    """Write a result into a run folder, if any, with a plot of its Pareto front if it has one."""
    from diswot.utils import files

    if out is None:
        return
    files.write_json(out / FOUND, result)
    if result["front"]:
        from diswot.proxies.registry import score_title
        from diswot.reports import plots

        plots.save(plots.front(plots.front_data(result, score_title(proxy))), out / FRONT)


def show(result: dict[str, Any], proxy: str) -> None:
    """Print the Pareto front, or the best students of one objective."""
    from diswot.costs.budget import show_costs

    front = result["front"]
    students = front or result["top"]
    costs = budgets.columns(students)
    rows = []
    for place, student in enumerate(students):
        cells = [show_params(student["params"]), f"{student['score']:.5g}"]
        rows.append([str(place), *cells, *(column[place] for column in costs.values())])
    counts = ", ".join(f"{result[n]} {n}" for n in ("scored", "reused", "rejected", "failed"))
    of = f"front of {', '.join(result['objectives'])}" if front else "best"
    title = f"{of} of {result['trials']} students ({counts}) in {result['seconds']:.1f} s"
    if like := result["like"]:
        title += f", within the cost of {like['network']} ({show_costs(like)})"
    console.table(title, ["", "student", proxy, *costs], rows, text=2)


def remarks(
    result: dict[str, Any], trials: int, how: Setting | None, out: Path | None
) -> list[str]:
    """Return notes on the costs, on failures, and on a search that stopped early."""
    lines = budgets.notes(result["front"] or result["top"], how)
    if how is not None and out is not None:
        lines += _interval(result["best"]["params"], how, out / LATENCIES)
    if result["failed"]:
        kinds = ", ".join(f"{count} {kind}" for kind, count in result["failed_by_kind"].items())
        reason = max(result["failures"], key=result["failures"].__getitem__)
        lines.append(f"{result['failed']} failed ({kinds}), such as: {reason}")
    if result["stopped"]:
        scored = show_number(result["scored"], "student")
        lines.append(f"stopped with {scored} scored of {trials} asked: {result['stopped']}")
    return lines


def _interval(params: Mapping[str, Any], how: Setting, cache: Path) -> list[str]:
    """Return a note on the latency of a student that a run folder keeps."""
    from diswot.costs.latency import kept_timing
    from diswot.utils.units import show_seconds

    timing = kept_timing(cache, params, how)
    if timing is None:
        return []
    low, high = map(show_seconds, (timing.low, timing.high))
    text = f"the best student's 95 % interval is {low} to {high}, of {timing.runs} runs"
    return [f"{text}; minutes later a busy machine may give another"]


def kept_in(out: Path | None, storage: str | None, settings: str, *, trained: bool) -> list[str]:
    """Return a note on where the search is kept, with the command that distils its student."""
    if out is not None:
        weights = "" if trained else " --teacher-weights FILE, the trained teacher's"
        return [f"kept in {out}; next: diswot distill {quote(str(out))}{settings}{weights}"]
    return [] if storage else [console.NOT_KEPT]
