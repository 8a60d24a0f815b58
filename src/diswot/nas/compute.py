"""Where candidates are evaluated: this process, worker processes of this machine, or Ray."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from diswot.costs.latency import LatencyBench, Setting
from diswot.errors import UserError
from diswot.executors.inline import Inline
from diswot.executors.processes import process_pool
from diswot.executors.protocol import Executor, Make
from diswot.nas.evaluator import Evaluator
from diswot.nas.measuring import Latency, MeasuredFirst, Measurement
from diswot.spaces.registry import Params, build_network
from diswot.utils import devices

if TYPE_CHECKING:
    from diswot.executors.ray import RayCluster

MEASURED = 4  # times the timeout of a candidate that one measurement may take


@dataclass(frozen=True)
class Compute:
    """How many workers evaluate candidates, where, and for how long.

    Attributes:
        workers: Worker processes, each of which observes the teacher; None is this process, or
            one a device where there are several, or all that a Ray cluster holds. A candidate
            that kills its worker, or exceeds the timeout, fails alone. Teacher, space and batches
            must be picklable.
        threads: Threads of each process; None is one for each worker, and all without workers.
            Scores are equal to the last bit for one number of threads.
        timeout: Seconds that one candidate may take; needs workers, and starts one if none is set.
        devices: Devices to score on, all of one kind; worker i takes device i, counted round. None
            given is the device of the batches.
        ray: A Ray cluster that the workers run on.
        latency: How latency is measured, in a process of its own; or a function of the parameters
            that returns seconds. Needed where latency is limited or an objective.

    Raises:
        UserError: Two settings contradict each other.
    """

    workers: int | None = None
    threads: int | None = None
    timeout: float | None = None
    devices: tuple[str, ...] = ()
    ray: RayCluster | None = None
    latency: Setting | Latency | None = None

    def __post_init__(self) -> None:
        if self.devices:
            devices.kind(self.devices)
        if self.workers is not None and 0 < self.workers < len(self.devices):
            raise UserError(f"{len(self.devices)} devices need as many workers, not {self.workers}")
        if self.ray is not None and len(self.devices) > 1:
            raise UserError("on Ray each worker is given its GPU by Ray; name one device at most")

    def places(self, batches: torch.device) -> tuple[str, ...]:
        """Return the devices to score on: those named, else a cluster's GPU or the batches'."""
        on_gpus = self.ray is not None and self.ray.gpus > 0
        return self.devices or (("cuda",) if on_gpus else (str(batches),))

    @contextmanager
    def executor(self, evaluator: Evaluator, cache: Path | None) -> Iterator[Executor]:
        """Start what evaluates candidates, and what measures them before if latency counts.

        Both end on the way out. Measured latencies are kept in a file, the cache, if there is one.

        Raises:
            UserError: There is no such device or cluster, a number is wrong, or nothing measures
                the latency.
            SearchFailed: Workers cannot start.
        """
        counts = "latency" in evaluator.costs
        if counts and self.latency is None:
            raise UserError(
                "latency is limited or an objective, and nothing is given to measure it"
            )
        with ExitStack() as stack:
            executor = stack.enter_context(self._evaluations(evaluator))
            if counts:
                measurements = stack.enter_context(self._measurements(evaluator, cache))
                executor = MeasuredFirst(measurements, executor)
            yield executor

    def _measurements(
        self, evaluator: Evaluator, cache: Path | None
    ) -> AbstractContextManager[Executor]:
        """Return what measures latency: a process of its own, or a user's function in this one."""
        of = partial(Measurement, evaluator.space, evaluator.budget, evaluator.image_shape)
        if not isinstance(self.latency, Setting):
            assert self.latency is not None
            return nullcontext(Inline(of(self.latency)))
        bench = LatencyBench(partial(build_network, evaluator.space), self.latency, cache)
        make = partial(of, partial(_upper_end, bench))
        timeout = None if self.timeout is None else MEASURED * self.timeout
        return process_pool([make], 1, threads=self.latency.threads, timeout=timeout)

    def _evaluations(self, evaluator: Evaluator) -> AbstractContextManager[Executor]:
        names = self.places(evaluator.batches[0].images.device)
        makes = [replace(evaluator, device=name).make for name in names]
        threads = self.threads or 1
        if self.ray is not None:
            from diswot.executors.ray import ray_actors

            return ray_actors(makes, self.ray, self.workers, threads=threads, timeout=self.timeout)
        for name in names:
            devices.get_device(name)
        if self.workers is None and self.timeout is None and len(names) == 1:
            return _inline(makes[0], self.threads)
        size = len(names) if self.workers is None else self.workers
        return process_pool(makes, size, threads=threads, timeout=self.timeout)


@contextmanager
def _inline(make: Make, threads: int | None) -> Iterator[Executor]:
    with devices.threads(threads):
        yield Inline(make())


def _upper_end(bench: LatencyBench, params: Params) -> float:
    return bench(params).high
