"""Timing of one image's pass through a network, in this process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol

import torch
from torch import nn

from diswot.costs.counts import Shape
from diswot.costs.onnx_program import onnx_program
from diswot.errors import UserError

resource: ModuleType | None
try:
    import resource
except ImportError:  # on Windows
    resource = None

WARM_UP, LEAST, MOST = 3, 9, 1000  # runs
SECONDS = 0.2  # of measuring, unless `LEAST` runs take longer; three times that if disturbed
TURNS_SECONDS = 1.0  # of measuring two calls in turn, unless `LEAST` turns take longer


class Place(Protocol):
    """Where an engine runs."""

    @property
    def device(self) -> str:
        """Name of a torch device."""

    @property
    def threads(self) -> int:
        """Threads for one image."""


@dataclass(frozen=True)
class Timing:
    """Seconds of one image.

    Attributes:
        seconds: Median over the runs.
        low: 10th percentile over the runs.
        high: 90th percentile over the runs.
        runs: Number of runs, without those to warm up.
        disturbed: Number of further runs that were left out.
    """

    seconds: float
    low: float
    high: float
    runs: int
    disturbed: int


def clock(place: Place) -> tuple[str, Callable[[], float]]:
    """Return the name of the clock for a place, and the clock.

    If one thread of the processor does the work, its processor time equals the wall time of an idle
    machine, and does not change on a busy one.
    """
    if place.device == "cpu" and place.threads == 1:
        return "processor time of the thread", time.thread_time
    return "wall clock", time.perf_counter


def timed(call: Callable[[], object], now: Callable[[], float] = time.perf_counter) -> Timing:
    """Time a call repeatedly: first to warm up, then to measure.

    Runs during which the system gave the processor to other processes are left out if enough runs
    remain.
    """
    for _ in range(WARM_UP):
        call()
    quiet: list[float] = []
    disturbed: list[float] = []
    begin = time.perf_counter()
    while _continues(len(quiet), len(disturbed), time.perf_counter() - begin):
        before, start = _interruptions(), now()
        call()
        seconds = now() - start
        (quiet if _interruptions() == before else disturbed).append(seconds)
    enough = len(quiet) >= LEAST
    kept = quiet if enough else quiet + disturbed
    return Timing(*spread(kept), len(kept), len(disturbed) if enough else 0)


def timed_in_turn(
    first: Callable[[], object],
    second: Callable[[], object],
    now: Callable[[], float] = time.perf_counter,
) -> tuple[list[float], list[float]]:
    """Time two calls turn by turn, so that what slows the machine slows both.

    Returns:
        Seconds of the first and of the second call in each turn, without the turns to warm up.
    """
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(WARM_UP):
        first()
        second()
    begin = time.perf_counter()
    while len(seconds[0]) < LEAST or (
        len(seconds[0]) < MOST and time.perf_counter() - begin < TURNS_SECONDS
    ):
        for call, taken in zip((first, second), seconds, strict=True):
            start = now()
            call()
            taken.append(now() - start)
    return seconds


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the median, the 10th and the 90th percentile of some values."""
    ordered = sorted(values)
    tenth = len(ordered) // 10
    return statistics.median(ordered), ordered[tenth], ordered[-1 - tenth]


def _continues(quiet: int, disturbed: int, elapsed: float) -> bool:
    if quiet + disturbed < LEAST:
        return True
    enough = SECONDS if quiet >= LEAST else 3 * SECONDS
    return quiet + disturbed < MOST and elapsed < enough


def _interruptions() -> int:
    """Count how often the system took the processor from this process; 0 where it is unknown."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw if resource else 0


def with_torch(model: nn.Module, image_shape: Shape, place: Place) -> Callable[[], object]:
    """Return a pass in torch: float32, evaluation mode, channels-last."""
    device = torch.device(place.device)
    form = torch.channels_last
    model = model.eval().to(device, torch.float32)
    model = model.to(memory_format=form)
    image = torch.randn(1, *image_shape).to(device, memory_format=form)

    def call() -> None:
        with torch.inference_mode():
            model(image)
        if device.type != "cpu":
            torch.accelerator.synchronize(device)

    return call


def with_onnx(model: nn.Module, image_shape: Shape, place: Place) -> Callable[[], object]:
    """Return a pass in ONNX Runtime on the processor, of the network exported in float32.

    Raises:
        UserError: The packages of the extra `onnx` are missing.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError("ONNX Runtime is not installed: pip install 'diswot[onnx]'") from error
    image = torch.randn(1, *image_shape)
    program = onnx_program(model.eval(), image)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = place.threads
    session = onnxruntime.InferenceSession(program, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: image.numpy()}
    return lambda: session.run(None, feed)


ENGINES: dict[str, Callable[[nn.Module, Shape, Place], Callable[[], object]]] = {
    "torch": with_torch,
    "onnx": with_onnx,
}
