"""Workers that are actors of a Ray cluster.

An actor answers each message with one: its call is done when the worker has something to say. So
the driver waits on calls as it does on pipes, and one that is never answered is a worker's end.
"""

from __future__ import annotations

import io
import logging
import math
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

import torch

from diswot import __version__
from diswot.errors import SearchFailed, UserError
from diswot.executors import ray_head
from diswot.executors.packed import Make, Packed, Work
from diswot.executors.protocol import Message
from diswot.executors.ray_head import ANY, LOCAL, Head
from diswot.executors.talk import talk
from diswot.utils import optional_imports

MOST = 200  # characters of what Ray says
PAUSE = 0.1  # seconds to wait where no worker has anything to say


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster, and what a worker takes of it.

    Attributes:
        address: `local` starts one on this machine that ends with the search; `auto` is the one
            that runs on this machine; else `HOST:PORT` or `ray://HOST:PORT`.
        cpus: Of each worker; as many as its threads if not given.
        gpus: Of each worker; of less than one each, several share a card.

    Raises:
        UserError: No such address is possible, or no such share.
    """

    address: str = LOCAL
    cpus: float | None = None
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.address not in (LOCAL, ANY):
            ray_head.place(self.address)
        if self.cpus is not None and not 0 < self.cpus < math.inf:
            raise UserError(f"a worker's CPUs on Ray must be above zero, not {self.cpus:g}")
        if not (0 <= self.gpus < 1 or (1 <= self.gpus < math.inf and self.gpus % 1 == 0)):
            raise UserError(f"a worker's GPUs on Ray are part of one or whole, not {self.gpus:g}")

    def asks(self, threads: int) -> dict[str, float]:
        """What each worker takes, by Ray's names."""
        cpus = float(threads) if self.cpus is None else self.cpus
        return {"CPU": cpus, **({"GPU": self.gpus} if self.gpus else {})}


@dataclass(frozen=True, eq=False)
class _Put:
    """A reference to what workers do, in Ray's store."""

    reference: Any


@dataclass(eq=False)
class _Actor:
    """A worker, the call whose answer it owes, what that needs, and how the worker ended."""

    actor: Any
    due: Any
    needs: _Put | None
    how: str = ""


@dataclass(frozen=True)
class Actors:
    """Workers that are actors; a `workers.Transport`.

    Attributes:
        ray: The module, connected.
        made: What workers do; worker i number i, from the first on again. In Ray's store only
            while some start: a process that has something there ends with its node.
        threads: Of each worker.
        life: `Life` as an actor of this cluster.
        head: Of this cluster.
    """

    ray: Any
    made: Sequence[Packed]
    threads: int
    life: Any
    head: Head
    _puts: WeakValueDictionary[int, _Put] = field(default_factory=WeakValueDictionary)

    def start(self, number: int) -> _Actor:
        """Ask for an actor, which starts when there is room for it."""
        self.head.wait()
        actor = self.life.remote()
        which = number % len(self.made)
        put = self._puts.get(which) or _Put(self.ray.put(self.made[which]))
        self._puts[which] = put
        begun = actor.begin.remote(put.reference, self.threads, versions())
        return _Actor(actor, begun, put)

    def send(self, handle: _Actor, message: Message) -> None:
        """Call the actor."""
        handle.due = handle.actor.exchange.remote(message)

    def receive(
        self, handles: Sequence[_Actor], seconds: float | None
    ) -> list[tuple[_Actor, Message | None]]:
        """Wait on all calls, but not long without a look at the head."""
        self.head.look()
        seconds = ray_head.EACH if seconds is None else min(seconds, ray_head.EACH)
        due = {handle.due: handle for handle in handles if handle.due is not None}
        if not due:
            time.sleep(min(seconds, PAUSE))
            return []
        self.ray.wait(list(due), timeout=seconds)
        self.head.look()
        ready, _ = self.ray.wait(list(due), num_returns=len(due), timeout=0)
        return [(due[call], self._heard(due[call])) for call in ready]

    def _heard(self, handle: _Actor) -> Message | None:
        call, handle.due, handle.needs = handle.due, None, None
        try:
            message: Message = self.ray.get(call)
        except self.ray.exceptions.RayError as error:
            handle.how = _ended(error)
            return None
        return message

    def kill(self, handle: _Actor) -> None:
        """Kill the actor, or take it from the queue; one of a lost cluster ends by itself."""
        if not self.head.lost:
            self.ray.kill(handle.actor)

    def bury(self, handle: _Actor) -> str:
        """What Ray says of its end."""
        self.kill(handle)
        return handle.how


class Life:
    """A worker's side, in a process that Ray starts: what `workers.talk` says, call by call."""

    def __init__(self) -> None:
        self._heard: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._said: queue.SimpleQueue[Message] = queue.SimpleQueue()

    def begin(self, packed: Packed, threads: int, theirs: dict[str, str]) -> Message:
        """Become a worker; `ready` or `failed`."""
        if theirs != versions():
            return "failed", UserError(f"a worker has {versions()}, the search {theirs}")
        threading.Thread(target=self._live, args=(packed, threads), daemon=True).start()
        return self._said.get()

    def exchange(self, message: Message) -> Message:
        """Take a task or an answer; what is said next."""
        self._heard.put(message)
        return self._said.get()

    def send(self, message: Message) -> None:
        """Say something: the worker's thread."""
        self._said.put(message)

    def recv(self) -> Message:
        """Wait for something: the worker's thread."""
        return self._heard.get()

    def _live(self, packed: Packed, threads: int) -> None:
        try:
            what, error = talk(self, packed, threads)
        except BaseException:  # the driver is to hear of a death, not of nothing
            os._exit(1)
        self.send((what, type(error)(f"on {socket.gethostname()}: {error}")))


def versions() -> dict[str, str]:
    """On what scores depend that is the same on all machines of a search."""
    return {"diswot": __version__, "torch": torch.__version__.partition("+")[0]}


@contextmanager
def actors(
    makes: Sequence[Make], work: Work, threads: int, cluster: Cluster, workers: int | None
) -> Iterator[tuple[Actors, int]]:
    """Be connected to a cluster.

    Args:
        makes: What workers make; worker i number i, from the first on again.
        work: What they do.
        threads: Of each worker.
        cluster: Where, and what each takes of it.
        workers: How many there are to be, if that is known; a cluster of our own holds them all.

    Yields:
        What starts workers there, and how many the cluster holds.

    Raises:
        UserError: Ray is not installed, does not answer, or has no room for a single worker; or
            something cannot be pickled.
        SearchFailed: The cluster is lost.
    """
    ray = optional_imports.imported("ray", "--ray", "ray")
    asks = cluster.asks(threads)
    with _connected(ray, cluster.address, asks, workers), _told(ray, cluster.address):
        room = capacity(ray.nodes(), asks)
        if not room:
            wanted = " and ".join(f"{ask:g} {name}" for name, ask in asks.items())
            raise UserError(f"no node of the Ray cluster has {wanted} for a worker")
        variables = {"OMP_NUM_THREADS": str(threads)}  # before torch is imported
        options = {
            "num_cpus": asks["CPU"],
            "num_gpus": cluster.gpus,
            "runtime_env": {"env_vars": variables},
        }
        packed = [Packed.pack(make, work, ray.cloudpickle.dumps) for make in makes]
        life = ray.remote(Life).options(**options)
        yield Actors(ray, packed, threads, life, ray_head.head(ray, cluster.address)), room


def capacity(nodes: Sequence[Mapping[str, Any]], asks: Mapping[str, float]) -> int:
    """How many workers the living nodes hold, were they for these alone."""
    living = [node["Resources"] for node in nodes if node["Alive"]]
    return sum(min(_times(has.get(name, 0.0), ask) for name, ask in asks.items()) for has in living)


def _times(total: float, ask: float) -> int:
    """How often a share fits: less than one must lie in a single one."""
    if ask < 1:
        return int(total) * int(1 / ask + 1e-6)
    return int(total / ask + 1e-6)


@contextmanager
def _connected(
    ray: Any, address: str, asks: Mapping[str, float], workers: int | None
) -> Iterator[None]:
    """A session with the cluster, unless this process has one."""
    if ray.is_initialized():
        _agree(ray.get_runtime_context().gcs_address, address)
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster of our own tells nobody
    options: dict[str, Any] = {"address": address}
    if address == LOCAL:
        here = os.cpu_count() or 1
        options |= {"num_cpus": max(here, math.ceil((workers or 1) * asks["CPU"]))}
        options |= {"include_dashboard": False}
    else:
        ray_head.reach(ray_head.here() if address == ANY else address)
    try:
        ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise UserError(ray_head.refused(address, optional_imports.reason(error))) from error
    try:
        with redirect_stdout(_WithoutRay(sys.stdout)):
            yield
    finally:
        with redirect_stdout(io.StringIO()):  # it says the rest
            ray.shutdown()


@dataclass(frozen=True)
class _WithoutRay:
    """Standard output without what Ray says there, of workers that died, in a thread of its own."""

    stream: Any

    def write(self, text: str) -> int:
        if threading.current_thread().name.startswith("ray_"):
            return len(text)
        return int(self.stream.write(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def _told(ray: Any, address: str) -> Iterator[None]:
    """What Ray raises, in one line."""
    try:
        yield
    except (ray.exceptions.RayError, ConnectionError) as error:
        raise SearchFailed(f"the Ray cluster at {address} is lost: {_ended(error)}") from error


def _agree(connected: str, address: str) -> None:
    """Refuse a second cluster: a process has but one."""
    if address not in (LOCAL, ANY, connected):
        raise UserError(f"this process is in the Ray cluster at {connected}, not {address}")


def _ended(error: BaseException) -> str:
    """What Ray says of an end, without what it says before and what it guesses."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    detail = lines[-1].rpartition("Worker exit detail: ")[2] if lines else type(error).__name__
    return detail.partition(" Some common causes")[0][:MOST]
