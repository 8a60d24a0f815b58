"""Limits, objectives and the measurement of latency, as the options name them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diswot.errors import SearchFailed, UserError

if TYPE_CHECKING:
    from diswot.cli.options import BudgetOptions, LatencyOptions
    from diswot.costs.budget import Budget
    from diswot.costs.latency import Setting
    from diswot.data.dataset import Dataset

TIMEOUT = 600.0  # seconds of one measurement
LIKE = "like"  # a limit that is the cost of the network of --like


def budget(limits: BudgetOptions) -> Budget:
    """Return the limits that are numbers; those that are `like` come from `cli.like`."""
    from diswot.costs.budget import Budget

    given = {n: text for n, text in asdict(limits).items() if n.startswith("max_")}
    try:
        return Budget(**{n: text for n, text in given.items() if text not in (None, LIKE)})
    except UserError as error:
        name, colon, reason = str(error).partition(":")
        raise UserError(f"--{name.replace('_', '-')}{colon}{reason}") from error


def objectives(text: str) -> list[str]:
    """Return the objectives, whose names are separated by commas."""
    from diswot.nas.api import check_objectives

    names = [name.strip() for name in text.split(",")]
    check_objectives(names)
    return names


def setting(
    options: LatencyOptions, image_shape: tuple[int, int, int], *, wanted: bool
) -> Setting | None:
    """Return how latency is measured; None if it is not wanted. The options are always checked."""
    from diswot.costs.latency import Setting

    engine, threads = options.latency_engine, options.latency_threads
    made = Setting(image_shape, engine=engine, threads=threads)
    if not wanted and made != Setting(image_shape):
        raise UserError(
            "--latency-engine and --latency-threads go with what measures latency: --max-latency "
            "or --objectives score,latency of a search, --latency of a score"
        )
    return made if wanted else None


def latency(
    student: Any, space: str, images: Dataset, how: Setting, cache: Path | None = None
) -> float:
    """Return the seconds of one image of a student, measured in a process of its own.

    They are the upper end of the 95 % interval of their median.

    A file of measured latencies, `cache`, is read first.

    Raises:
        UserError: The student cannot be measured.
        SearchFailed: Its process died, or took too long.
    """
    from diswot.executors.processes import process_pool

    make = partial(_bench, student, space, len(images.classes), images.size, how, cache)
    with process_pool([make], 1, threads=how.threads, timeout=TIMEOUT) as pool:
        pool.submit("latency", {"student": student})
        while not (results := pool.wait()):
            continue
    (result,) = results
    if result.failure:
        raise SearchFailed(f"the latency of the student was not measured: {result.reason}")
    return float(result.value)


def teacher_latency(name: str, images: Dataset, how: Setting | None) -> float | None:
    """Measure the latency of a teacher, for the report; None without a setting, or on an error."""
    with suppress(UserError, SearchFailed):
        return None if how is None else latency(name, "", images, how)
    return None


def _bench(
    student: Any, space: str, classes: int, image_size: int, how: Setting, cache: Path | None
) -> Callable[[dict[str, Any]], float]:
    """Return what measures a student; the measuring process calls this."""
    from diswot.costs.latency import LatencyBench
    from diswot.runs.rebuild import student_builder

    build = student_builder(student, space, classes, image_size)
    bench = LatencyBench(lambda params: build(), how, cache)

    def measure(params: dict[str, Any]) -> float:
        try:
            return bench(params).high
        except RuntimeError as error:
            raise UserError(f"the student fails: {error}") from error

    return measure


def columns(students: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return table columns of the costs of students, with latency if it was measured."""
    from diswot.costs.budget import COSTS

    names = {"params": "model_params", "MACs": "macs", "memory": "memory", "latency": "latency"}
    shown = {title: COSTS[title.lower()].show for title in names}
    return {
        title: [shown[title](row[name]) for row in students]
        for title, name in names.items()
        if all(row[name] is not None for row in students)
    }


def notes(students: Sequence[Mapping[str, Any]], how: Setting | None) -> list[str]:
    """Return notes on the costs: what the MACs leave out, frozen parameters, the clock."""
    names = sorted({name for row in students for name in row["uncounted"]})
    left_out = f"operations without a formula, which the MACs leave out: {', '.join(names)}"
    lines = [left_out] if names else []
    frozen = next((row for row in students if row.get("trainable_params") is not None), None)
    if frozen is not None:
        lines.append(
            f"some parameters are frozen: of {frozen['model_params']:,}, for example, "
            f"{frozen['trainable_params']:,} are trainable"
        )
    if how is not None:
        of = how.facts
        threads = f"{of['threads']} thread{'s' if how.threads > 1 else ''}"
        place = f"{of['engine']} on {of['device']}, {threads}, {of['dtype']}, {of['memory_format']}"
        median = f"upper end of the 95 % interval of the median by {of['clock']}"
        lines.append(f"latency of one image: {place}; {median}")
    return lines
