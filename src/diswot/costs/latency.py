"""Latency of one image, measured on the device in use.

Convention: one float32 image, evaluation mode, no gradients, freshly initialised weights; some runs
to warm up, then the median of the others and its 95 % interval (`timing.timed`). With `torch`
network and image are channels-last; with `onnx` ONNX Runtime runs the exported network in its own
format. The number of threads is part of the setting: one by default. The pass of a detector
includes what selects its boxes, of which a new FCOS or RetinaNet finds none and a trained one some.

A bench measures in its own process. What must not be disturbed by other work, or must survive a
network that ends its process, runs in an executor of one worker.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from diswot.costs.counts import Shape
from diswot.costs.onnx_program import check_onnx, onnx_program, onnx_session
from diswot.costs.timing import Timing, timed
from diswot.errors import UserError, one_line, unknown
from diswot.utils import environment, jsonl
from diswot.utils.devices import get_device, threads

Params = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """How latency is measured.

    Attributes:
        image_shape: C, H, W.
        engine: A key of `ENGINES`.
        device: Name of a torch device; ONNX Runtime runs on the processor only.
        threads: Threads for one image.

    Raises:
        UserError: A value is not possible here: there is no such device, or packages are missing.
    """

    image_shape: Shape
    engine: str = "torch"
    device: str = "cpu"
    threads: int = 1

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise unknown("latency engine", self.engine, ENGINES)
        if self.threads < 1:
            raise UserError(f"latency needs at least one thread, not {self.threads}")
        if self.engine == "onnx" and self.device != "cpu":
            raise UserError(
                "ONNX Runtime measures on the processor only; take --latency-engine torch"
            )
        if self.engine == "onnx":
            check_onnx("--latency-engine onnx")
        get_device(self.device)

    @property
    def facts(self) -> dict[str, Any]:
        """Return all that a measured number depends on, as plain values."""
        kept = {**asdict(self), "image_shape": list(self.image_shape), "batch": 1}
        form = "channels-last" if self.engine == "torch" else "as exported"
        kept |= {"dtype": "float32", "memory_format": form, "clock": clock(self)[0]}
        here = environment.hardware()
        here.pop("threads")
        return {**kept, **here, "torch": torch.__version__}


def clock(setting: Setting) -> tuple[str, Callable[[], float]]:
    """Return the name of the clock for a setting, and the clock.

    If one thread of the processor does the work, its processor time equals the wall time of an idle
    machine, and does not change on a busy one.
    """
    if setting.device == "cpu" and setting.threads == 1:
        return "processor time of the thread", time.thread_time
    return "wall clock", time.perf_counter


def with_torch(model: nn.Module, setting: Setting) -> Callable[[], object]:
    """Return a pass in torch: float32, evaluation mode, channels-last."""
    device = torch.device(setting.device)
    form = torch.channels_last
    model = model.eval().to(device, torch.float32)
    model = model.to(memory_format=form)
    image = torch.randn(1, *setting.image_shape).to(device, memory_format=form)

    def call() -> None:
        with torch.inference_mode():
            model(image)
        if device.type != "cpu":
            torch.accelerator.synchronize(device)

    return call


def with_onnx(model: nn.Module, setting: Setting) -> Callable[[], object]:
    """Return a pass in ONNX Runtime on the processor, of the network exported in float32."""
    image = torch.randn(1, *setting.image_shape)
    session = onnx_session(onnx_program(model.eval(), image), setting.threads)
    feed = {session.get_inputs()[0].name: image.numpy()}
    return lambda: session.run(None, feed)


ENGINES: dict[str, Callable[[nn.Module, Setting], Callable[[], object]]] = {
    "torch": with_torch,
    "onnx": with_onnx,
}


class LatencyBench:
    """Latency measurements of networks in this process, each network once.

    Args:
        build: Builds a network from its parameters.
        setting: How it is measured.
        cache: File of one JSON line a measured architecture; what it holds of the same setting is
            not measured again. Without it, nothing is kept beyond this process.
    """

    def __init__(
        self, build: Callable[[Params], nn.Module], setting: Setting, cache: Path | None = None
    ) -> None:
        self._build, self._setting, self._cache = build, setting, cache
        self._facts = setting.facts
        self._known = {} if cache is None else dict(_read(cache, self._facts))

    def __call__(self, params: Params) -> Timing:
        """Return the seconds of one image.

        Raises:
            RuntimeError: The network cannot be built, exported or run; one line with the reason.
        """
        name = _name(params)
        if name not in self._known:
            try:
                self._known[name] = self._measure(params)
            except Exception as error:  # users' networks raise errors of any kind
                reason = one_line(error)
                raise RuntimeError(f"latency: {reason}") from error
            self._keep(params, self._known[name])
        return self._known[name]

    def _measure(self, params: Params) -> Timing:
        with threads(self._setting.threads):
            engine = ENGINES[self._setting.engine]
            call = engine(self._build(params), self._setting)
            return timed(call, clock(self._setting)[1])

    def _keep(self, params: Params, timing: Timing) -> None:
        """Add a line to the cache; a disk that is full does not stop a search."""
        if self._cache is not None:
            row = {"params": params, "timing": asdict(timing), "setting": self._facts}
            with suppress(OSError):
                jsonl.append(self._cache, [row])


def kept_timing(cache: Path, params: Mapping[str, Any], setting: Setting) -> Timing | None:
    """Return how long a network took that was measured before, by a file of a bench."""
    return dict(_read(cache, setting.facts)).get(_name(params))


def _read(path: Path, setting: Mapping[str, Any]) -> Iterator[tuple[str, Timing]]:
    """Yield what a cache holds of a setting."""
    for row in jsonl.read_lines(path, skip_damaged=True):
        with suppress(TypeError, KeyError):
            if row["setting"] == setting:
                yield _name(row["params"]), Timing(**row["timing"])


def _name(params: Mapping[str, Any]) -> str:
    return json.dumps(params, sort_keys=True)
