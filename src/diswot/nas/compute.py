"""Who examines the candidates of a search: this process, others of this machine, a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from diswot.errors import UserError
from diswot.executors.packed import Make, Packed
from diswot.executors.pool import Pool
from diswot.executors.processes import Pipes
from diswot.executors.ray import Cluster, actors
from diswot.nas.driver import Crew
from diswot.nas.evaluator import Alone, Setup, work
from diswot.utils import devices


@dataclass(frozen=True)
class Staff:
    """How many examine candidates, where, and for how long; see `search.search`.

    Raises:
        UserError: Some of it does not go together.
    """

    workers: int | None = None
    threads: int | None = None
    timeout: float | None = None
    places: tuple[str, ...] = ()
    cluster: Cluster | None = None

    def __post_init__(self) -> None:
        if self.places:
            devices.kind(self.places)
        if self.workers is not None and 0 < self.workers < len(self.places):
            raise UserError(f"{len(self.places)} devices need as many workers, not {self.workers}")
        if self.cluster is not None and len(self.places) > 1:
            raise UserError("on Ray each worker is given its GPU by Ray; name one device at most")

    def devices(self, batches: torch.device) -> tuple[str, ...]:
        """Where to score: as was said, or on Ray's GPUs, or else where the batches are.

        Args:
            batches: Where they are.
        """
        on_gpus = self.cluster is not None and self.cluster.gpus > 0
        return self.places or (("cuda",) if on_gpus else (str(batches),))

    @contextmanager
    def crew(self, setup: Setup) -> Iterator[Crew]:
        """Start them; they end on the way out.

        Raises:
            UserError: There is no such device or cluster, or a number is wrong.
            SearchFailed: Workers cannot start.
        """
        names = self.devices(setup.batches[0].images.device)
        examiners = [replace(setup, device=name).examiner for name in names]
        if self.cluster is not None:
            with self._remote(examiners, self.cluster) as pool:
                yield pool
            return
        for name in names:
            devices.get_device(name)
        if self.workers is None and self.timeout is None and len(names) == 1:
            with _threads(self.threads):
                yield Alone(examiners[0]())
            return
        pipes = Pipes([Packed.pack(make, work) for make in examiners], self.threads or 1)
        with Pool(
            pipes, len(names) if self.workers is None else self.workers, self.timeout
        ) as pool:
            yield pool

    @contextmanager
    def _remote(self, examiners: Sequence[Make], cluster: Cluster) -> Iterator[Pool]:
        with actors(examiners, work, self.threads or 1, cluster, self.workers) as (some, room):
            size = room if self.workers is None else self.workers
            with Pool(some, size, self.timeout) as pool:
                yield pool


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(count or before)
        yield
    finally:
        torch.set_num_threads(before)
