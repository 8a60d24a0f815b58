"""Latency of one image, measured on the device in use, in a process of its own.

Convention: one float32 image, evaluation mode, no gradients, freshly initialised weights; some runs
to warm up, then the median of the others (`timing.timed`). With `torch` network and image are
channels-last; with `onnx` ONNX Runtime runs the exported network as it likes. Threads are part of
the setting: one unless told otherwise.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import secrets
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Client, Connection, Listener
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from torch import nn

from diswot.costs.counts import Shape
from diswot.costs.timing import ENGINES, Timing, clock, timed
from diswot.errors import SearchFailed, UserError, unknown
from diswot.utils import environment

Params = dict[str, Any]
MakeBuild = Callable[[], Callable[[Params], nn.Module]]

TIMEOUT = 600.0  # seconds to wait for one measurement, those before it in the queue included


@dataclass(frozen=True)
class Setting:
    """How latency is measured.

    Attributes:
        image_shape: C, H, W.
        engine: A key of `timing.ENGINES`.
        device: Of torch; ONNX Runtime runs on the processor.
        threads: That one image may use.

    Raises:
        UserError: A value is not possible here.
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

    @property
    def facts(self) -> dict[str, Any]:
        """Everything that a measured number depends on, plain."""
        kept = {**asdict(self), "image_shape": list(self.image_shape), "batch": 1}
        form = "channels-last" if self.engine == "torch" else "as exported"
        kept |= {"dtype": "float32", "memory_format": form, "clock": clock(self)[0]}
        here = environment.hardware()
        here.pop("threads")
        return {**kept, **here, "torch": torch.__version__}


@dataclass(frozen=True)
class Meter:
    """Asks the measuring process; can be sent to other processes.

    Attributes:
        address: Where it listens.
        key: What it knows its callers by.
    """

    address: str
    key: bytes

    def __call__(self, params: Params) -> float:
        """Seconds of one image, the median; waits for its turn.

        Raises:
            RuntimeError: The network cannot be measured.
            SearchFailed: The measuring process is gone, or does not answer.
        """
        return self.time(params).seconds

    def time(self, params: Params) -> Timing:
        """The same with its spread."""
        try:
            with Client(self.address, authkey=self.key) as server:
                server.send_bytes(json.dumps(params).encode())
                if not server.poll(TIMEOUT):
                    raise SearchFailed(f"no latency was measured within {TIMEOUT:g} s")
                answer = json.loads(server.recv_bytes())
        except (OSError, EOFError) as error:
            raise SearchFailed(
                "the process that measures latency has ended: out of memory?"
            ) from error
        if "failed" in answer:
            raise RuntimeError(f"latency: {answer['failed']}")
        return Timing(**answer)


@contextmanager
def metering(make: MakeBuild, setting: Setting, cache: Path | None = None) -> Iterator[Meter]:
    """Keep a measuring process for a while; one network at a time is measured in it.

    Args:
        make: Called once in the process; returns what builds a network from its parameters. It
            must be possible to pickle it, as `partial(spaces.builder, "s0", 100)`.
        setting: How it is measured.
        cache: File of one JSON line a measured architecture; what it holds of the same setting is
            not measured again.

    Raises:
        UserError: `make` raises one, or the process cannot be started.
    """
    ours, theirs = multiprocessing.Pipe()
    key = secrets.token_bytes(32)
    context = multiprocessing.get_context("spawn")
    arguments = (make, setting, cache, theirs, key)
    process = context.Process(target=_serve, args=arguments, daemon=True, name="latency")
    process.start()
    theirs.close()
    try:
        yield Meter(_address(ours), key)
    finally:
        ours.close()
        _end(process)


def _address(server: Connection) -> str:
    """Wait for the process to listen."""
    try:
        said = json.loads(server.recv_bytes())
    except (EOFError, OSError) as error:
        raise UserError(
            "the process that measures latency could not be started; a script of your own needs "
            'its commands under `if __name__ == "__main__":`'
        ) from error
    if "failed" in said:
        raise UserError(said["failed"])
    return str(said["address"])


def _end(process: BaseProcess) -> None:
    """Ask the process to end, and kill it if it is too busy to hear."""
    process.terminate()
    process.join(2)
    process.kill()
    process.join()


def _serve(
    make: MakeBuild, setting: Setting, cache: Path | None, ready: Connection, key: bytes
) -> None:
    """Measure what callers ask for, one after the other, until the process is ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    os.dup2(sys.stderr.fileno(), 1)  # what a user's network prints is no result
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(setting.threads)
    try:
        bench = _Bench(make(), setting, cache)
    except UserError as error:
        ready.send_bytes(json.dumps({"failed": str(error)}).encode())
        return
    with Listener(backlog=64, authkey=key) as listener:
        ready.send_bytes(json.dumps({"address": listener.address}).encode())
        while True:
            # a caller may be killed at any moment
            gone = suppress(OSError, EOFError, multiprocessing.AuthenticationError)
            with gone, listener.accept() as caller:
                answer = bench.answer(json.loads(caller.recv_bytes()))
                caller.send_bytes(json.dumps(answer).encode())


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(0)


class _Bench:
    """Builds and times networks, and remembers."""

    def __init__(
        self, build: Callable[[Params], nn.Module], setting: Setting, cache: Path | None
    ) -> None:
        self._build, self._setting, self._cache = build, setting, cache
        self._facts = setting.facts
        self._known = {} if cache is None else dict(_read(cache, self._facts))

    def answer(self, params: Params) -> dict[str, Any]:
        name = json.dumps(params, sort_keys=True)
        if name not in self._known:
            try:
                model = self._build(params)
                engine = ENGINES[self._setting.engine]
                call = engine(model, self._setting.image_shape, self._setting)
                timing = timed(call, clock(self._setting)[1])
            except Exception as error:  # whatever a user's network raises is told in one line
                return {"failed": " ".join(f"{type(error).__name__}: {error}".split())}
            self._known[name] = asdict(timing)
            self._keep(params, self._known[name])
        return self._known[name]

    def _keep(self, params: Params, timing: Mapping[str, Any]) -> None:
        """Add a line to the cache, which is not worth failing for."""
        if self._cache is not None:
            row = {"params": params, "timing": timing, "setting": self._facts}
            with suppress(OSError), self._cache.open("a") as file:
                file.write(json.dumps(row) + "\n")


def _read(path: Path, setting: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """What a cache holds of a setting; lines that were not written whole are passed over."""
    lines = path.read_text().splitlines() if path.is_file() else []
    for line in lines:
        with suppress(ValueError, TypeError, KeyError):
            row = json.loads(line)
            if row["setting"] == setting:
                timing = Timing(**row["timing"])
                yield json.dumps(row["params"], sort_keys=True), asdict(timing)
