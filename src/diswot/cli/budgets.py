"""Limits, objectives and the measurement of latency, as the options name them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diswot.errors import UserError
from diswot.storage.run_files import LATENCIES

if TYPE_CHECKING:
    from torch import nn

    from diswot.cli.options import BudgetOptions, LatencyOptions
    from diswot.costs.budget import Budget
    from diswot.costs.latency import MakeBuild, Meter, Setting


def budget(limits: BudgetOptions) -> Budget:
    """Return the limits as numbers.

    Raises:
        UserError: A limit is no number in its unit; the error names the option.
    """
    from diswot.costs.budget import Budget
    from diswot.utils.units import parse_bytes, parse_count, parse_seconds

    readers = {
        "max_params": parse_count,
        "max_macs": parse_count,
        "max_memory": parse_bytes,
        "max_latency": parse_seconds,
    }
    numbers: dict[str, float] = {}
    for name, read in readers.items():
        if (text := getattr(limits, name)) is not None:
            try:
                numbers[name] = read(text)
            except UserError as error:
                raise UserError(f"--{name.replace('_', '-')}: {error}") from error
    return Budget(**numbers)


def objectives(text: str) -> list[str]:
    """Return the objectives, whose names are separated by commas.

    Raises:
        UserError: An objective is unknown, or they do not go together.
    """
    from diswot.nas.api import check_objectives

    names = [name.strip() for name in text.split(",")]
    check_objectives(names)
    return names


def setting(
    options: LatencyOptions, image_shape: tuple[int, int, int], *, wanted: bool
) -> Setting | None:
    """Return how latency is measured; None if it is not.

    Args:
        options: The user's options, which are checked in any case.
        image_shape: Channels, height and width.
        wanted: Whether latency is measured.

    Raises:
        UserError: An option is impossible, or given although no latency is measured.
    """
    from diswot.costs.latency import Setting
    from diswot.utils.optional_imports import imported

    engine, threads = options.latency_engine, options.latency_threads
    made = Setting(image_shape, engine=engine, threads=threads)
    if not wanted and made != Setting(image_shape):
        raise UserError(
            "--latency-engine and --latency-threads go with what measures latency: --max-latency "
            "or --objectives score,latency of a search, --latency of a score"
        )
    for name in ("onnxruntime", "onnxscript") if wanted and engine == "onnx" else ():
        imported(name, "--latency-engine onnx", "onnx")
    return made if wanted else None


@contextmanager
def metered(make: MakeBuild, how: Setting | None, folder: Path | None) -> Iterator[Meter | None]:
    """Provide a process that measures latency; None if it is not measured.

    Args:
        make: Called once in the process; returns a function that builds a network from params.
        how: How latency is measured; None if it is not.
        folder: Run folder, whose file of latencies saves measuring twice; None without one.
    """
    from diswot.costs.latency import metering

    if how is None:
        yield None
        return
    with metering(make, how, folder and folder / LATENCIES) as meter:
        yield meter


def space(name: str, classes: int, image_size: int) -> Callable[[dict[str, Any]], nn.Module]:
    """Return what builds the networks of a space; the measuring process calls this."""
    from diswot.spaces.registry import build_network, create_space

    return partial(build_network, create_space(name, classes, image_size))


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
    """Return notes on the costs: operations that the MACs leave out, and how latency was timed."""
    names = sorted({name for row in students for name in row["uncounted"]})
    lines = (
        [f"operations without a formula, which the MACs leave out: {', '.join(names)}"]
        if names
        else []
    )
    if how is not None:
        of = how.facts
        threads = f"{of['threads']} thread{'s' if how.threads > 1 else ''}"
        place = f"{of['engine']} on {of['device']}, {threads}, {of['dtype']}, {of['memory_format']}"
        lines.append(f"latency of one image: {place}; median by {of['clock']}")
    return lines
