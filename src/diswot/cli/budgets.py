"""Limits, objectives and the measuring of latency, as named on the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from diswot.errors import SearchFailed, UserError

if TYPE_CHECKING:
    from diswot.costs.budget import Budget
    from diswot.costs.latency import Setting

TIMEOUT = 600.0  # seconds for one measurement


def budget(params: str | None, macs: str | None, memory: str | None, latency: str | None) -> Budget:
    """Limits from what was written; an error names the option."""
    from diswot.costs.budget import Budget
    from diswot.utils.units import parse_bytes, parse_count, parse_seconds

    readers = {
        "params": (params, parse_count),
        "macs": (macs, parse_count),
        "memory": (memory, parse_bytes),
        "latency": (latency, parse_seconds),
    }
    limits: dict[str, float] = {}
    for name, (text, read) in readers.items():
        if text is not None:
            try:
                limits[f"max_{name}"] = read(text)
            except UserError as error:
                raise UserError(f"--max-{name}: {error}") from error
    return Budget(**limits)


def objectives(text: str) -> list[str]:
    """Names with commas, refused before anything is read if they do not go together."""
    from diswot.nas.api import check_objectives

    names = [name.strip() for name in text.split(",")]
    check_objectives(names)
    return names


def setting(
    asked: bool, image_shape: tuple[int, int, int], engine: str, threads: int
) -> Setting | None:
    """How latency is measured, if it is asked for; wrong options are told in any case."""
    from diswot.costs.latency import Setting
    from diswot.utils.optional_imports import imported

    made = Setting(image_shape, engine=engine, threads=threads)
    if not asked and made != Setting(image_shape):
        raise UserError(
            "--latency-engine and --latency-threads go with what measures latency: --max-latency "
            "or --objectives score,latency of a search, --latency of a score"
        )
    for name in ("onnxruntime", "onnxscript") if asked and engine == "onnx" else ():
        imported(name, "--latency-engine onnx", "onnx")
    return made if asked else None


def latency(student: str, space: str, classes: int, image_size: int, how: Setting) -> float:
    """Return the seconds of one image of a student, measured in a process of its own.

    Raises:
        UserError: The student cannot be measured.
        SearchFailed: Its process died, or took too long.
    """
    from diswot.executors.processes import process_pool

    make = partial(_bench, student, space, classes, image_size, how)
    with process_pool([make], 1, threads=how.threads, timeout=TIMEOUT) as pool:
        pool.submit(student, {})
        while not (results := pool.wait()):
            continue
    (result,) = results
    if result.failure:
        raise SearchFailed(f"the latency of {student} was not measured: {result.reason}")
    return float(result.value)


def _bench(
    student: str, space: str, classes: int, image_size: int, how: Setting
) -> Callable[[dict[str, Any]], float]:
    """Return what measures a student; called in the measuring process."""
    from diswot.cli import inputs
    from diswot.costs.latency import LatencyBench

    build, _ = inputs.student_builder(student, space, classes, image_size)
    bench = LatencyBench(lambda params: build(), how)

    def measure(params: dict[str, Any]) -> float:
        try:
            return bench(params).seconds
        except RuntimeError as error:
            raise UserError(f"the student fails: {error}") from error

    return measure


def columns(students: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Table columns of the costs of students; of latency if it was measured."""
    from diswot.costs.budget import COSTS

    names = {"params": "model_params", "MACs": "macs", "memory": "memory", "latency": "latency"}
    shown = {title: COSTS[title.lower()].show for title in names}
    return {
        title: [shown[title](row[name]) for row in students]
        for title, name in names.items()
        if all(row[name] is not None for row in students)
    }


def notes(students: Sequence[Mapping[str, Any]], how: Setting | None) -> list[str]:
    """What to know of these costs: what MACs leave out against the convention, what was timed."""
    names = sorted({name for row in students for name in row["uncounted"]})
    lines = [f"not in the MACs, for want of a formula: {', '.join(names)}"] if names else []
    if how is not None:
        of = how.facts
        threads = f"{of['threads']} thread{'s' if how.threads > 1 else ''}"
        place = f"{of['engine']} on {of['device']}, {threads}, {of['dtype']}, {of['memory_format']}"
        lines.append(f"latency of one image: {place}; median by {of['clock']}")
    return lines
