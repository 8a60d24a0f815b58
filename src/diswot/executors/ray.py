"""Workers that are actors of a Ray cluster.

A new actor takes the place of one that died, by the rules of `pool`. Ray's own restarts and retries
stay off: they would not count with these rules, nor wait until an actor is ready.

Ray ends the whole process without an exception: a minute after its head is lost, and at once when
the process uses the object store of a node that has ended. So the driver connects to the head now
and then, raises SearchFailed after 40 seconds of silence, and puts nothing into the object store.
"""

from __future__ import annotations

import io
import logging
import math
import os
import pickle
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from diswot import __version__
from diswot.errors import SearchFailed, UserError
from diswot.executors.pool import running
from diswot.executors.protocol import Do, Executor, Make
from diswot.executors.worker import Payload, Reply, attempt, read, write
from diswot.utils import optional_imports

LOCAL, ANY = "local", "auto"
REACH = 10.0  # seconds for a cluster's port to answer
EACH = 2.0  # seconds between looks at the head
SILENCE = 40.0  # seconds without an answer after which the head is lost; Ray's own are 60
PART = 65536  # bytes of a call; from 100 KiB on Ray would use the object store
PAUSE = 0.1  # seconds to wait where no worker is busy
MOST = 200  # characters of an error of Ray

Place = tuple[str, int]


@dataclass(frozen=True)
class RayCluster:
    """A Ray cluster, and what a worker takes there.

    Attributes:
        address: `local` starts a cluster on this machine that ends with the search; `auto` is the
            cluster that runs on this machine; else `HOST:PORT` or `ray://HOST:PORT`.
        cpus: CPUs of each worker; None is one a thread.
        gpus: GPUs of each worker; below one, several workers share a GPU.

    Raises:
        UserError: The address or a number is not possible.
    """

    address: str = LOCAL
    cpus: float | None = None
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.address not in (LOCAL, ANY):
            _place(self.address)
        if self.cpus is not None and not 0 < self.cpus < math.inf:
            raise UserError(f"a worker's CPUs on Ray must be above zero, not {self.cpus:g}")
        if not (0 <= self.gpus < 1 or (1 <= self.gpus < math.inf and self.gpus % 1 == 0)):
            raise UserError(f"a worker's GPUs on Ray are part of one or whole, not {self.gpus:g}")

    def resources(self, threads: int) -> dict[str, float]:
        """Return what each worker takes, by Ray's names."""
        cpus = float(threads) if self.cpus is None else self.cpus
        return {"CPU": cpus, **({"GPU": self.gpus} if self.gpus else {})}


@contextmanager
def ray_actors(
    makes: Sequence[Make],
    cluster: RayCluster,
    workers: int | None,
    *,
    threads: int = 1,
    timeout: float | None = None,
) -> Iterator[Executor]:
    """Keep actors on a Ray cluster while the context lasts, with the arguments of `process_pool`.

    Without a number of workers there are as many as the cluster holds.

    Raises:
        UserError: Ray is not installed or does not answer, no node has room for a worker, a `make`
            cannot be pickled, or it raised this error.
        SearchFailed: The cluster is lost, or workers die before they are ready.
    """
    ray = optional_imports.imported("ray", "--ray", "ray")
    resources = cluster.resources(threads)
    with _connected(ray, cluster.address, resources, workers), _one_line(ray, cluster.address):
        room = capacity(ray.nodes(), resources)
        if not room:
            wanted = " and ".join(f"{amount:g} {name}" for name, amount in resources.items())
            raise UserError(f"no node of the Ray cluster has {wanted} for a worker")
        actor = ray.remote(RayWorker).options(num_cpus=resources["CPU"], num_gpus=cluster.gpus)
        payloads = [pickle.dumps(Payload.pack(make, ray.cloudpickle.dumps)) for make in makes]
        backend = _RayBackend(ray, actor, payloads, threads, _liveness(ray, cluster.address))
        with running(backend, room if workers is None else workers, timeout) as pool:
            yield pool


class RayWorker:
    """Ray actor that does tasks."""

    _do: Do

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def feed(self, part: bytes) -> None:
        """Take a part of a pickled `Payload`."""
        self._parts.append(part)

    def begin(self, threads: int, driver: dict[str, str]) -> bytes:
        """Make the worker; its reply says whether it is ready."""
        if driver != versions():
            error = UserError(f"a worker has {versions()}, the search {driver}")
            return write(Reply(error=error))
        payload: Payload = pickle.loads(b"".join(self._parts))
        self._parts.clear()
        started = attempt(payload.do, threads, prefix=f"on {socket.gethostname()}: ")
        self._do = started.value
        return write(Reply(error=started.error))

    def perform(self, task: Any) -> bytes:
        """Do a task."""
        return write(attempt(self._do, task, prefix=f"on {socket.gethostname()}: "))


def versions() -> dict[str, str]:
    """Return the versions that scores depend on and that all machines of a search share."""
    return {"diswot": __version__, "torch": version("torch").partition("+")[0]}


def capacity(nodes: Sequence[Mapping[str, Any]], resources: Mapping[str, float]) -> int:
    """Return how many workers the living nodes hold if nothing else runs there."""
    living = [node["Resources"] for node in nodes if node["Alive"]]

    def times(total: float, share: float) -> int:  # a share below one lies in a single unit
        return int(total) * int(1 / share + 1e-6) if share < 1 else int(total / share + 1e-6)

    return sum(
        min(times(has.get(name, 0), share) for name, share in resources.items()) for has in living
    )


@dataclass(eq=False)
class _Actor:
    """A worker, and the call that it has not answered."""

    actor: Any
    call: Any


@dataclass(frozen=True)
class _RayBackend:
    """Backend of actors, which take pickled `Payload` objects in turn."""

    ray: Any
    actor: Any
    payloads: Sequence[bytes]
    threads: int
    liveness: _Liveness

    def start(self, number: int) -> _Actor:
        """Ask for an actor, which starts when there is room for it."""
        actor, payload = self.actor.remote(), self.payloads[number % len(self.payloads)]
        for begin in range(0, len(payload), PART):
            actor.feed.remote(payload[begin : begin + PART])
        return _Actor(actor, actor.begin.remote(self.threads, versions()))

    def send(self, worker: _Actor, task: Any) -> None:
        """Call the actor."""
        worker.call = worker.actor.perform.remote(task)

    def receive(
        self, workers: Sequence[_Actor], seconds: float | None
    ) -> list[tuple[_Actor, Reply]]:
        """Wait on all calls, but not for long without a look at the cluster."""
        self.liveness.check()
        seconds = EACH if seconds is None else min(seconds, EACH)
        calls = {worker.call: worker for worker in workers if worker.call is not None}
        if not calls:
            time.sleep(min(seconds, PAUSE))
            return []
        self.ray.wait(list(calls), timeout=seconds)
        done, _ = self.ray.wait(list(calls), num_returns=len(calls), timeout=0)
        return [(calls[call], self._reply(calls[call])) for call in done]

    def _reply(self, worker: _Actor) -> Reply:
        call, worker.call = worker.call, None
        try:
            return read(self.ray.get(call))
        except self.ray.exceptions.RayError as error:
            return Reply(death=_end(error))

    def kill(self, worker: _Actor) -> None:
        """Kill the actor, or take it from the queue; an actor of a lost cluster ends by itself."""
        if not self.liveness.lost:
            self.ray.kill(worker.actor)


@dataclass
class _Liveness:
    """Liveness check of a Ray cluster.

    Attributes:
        address: Address as the user named it.
        head: Host and port of the head; None behind a proxy, whose end Ray itself raises.
        alive: Whether a node is alive.
        lost: Whether the cluster is lost, so that Ray must not be used again.
        due: When to look again.
    """

    address: str
    head: Place | None
    alive: Callable[[], bool]
    lost: bool = False
    due: float = 0.0

    def check(self) -> None:
        """Return when the cluster answers; it is asked every few seconds.

        Raises:
            SearchFailed: The head is silent for too long, or no node is left.
        """
        begin = time.monotonic()
        if begin < self.due:
            return
        while not _answers(self.head):
            if time.monotonic() - begin >= SILENCE:
                self._lose("its head does not answer")
            time.sleep(EACH)
        if not self.alive():
            self._lose("no node is left")
        self.due = time.monotonic() + EACH

    def _lose(self, how: str) -> None:
        self.lost = True
        raise SearchFailed(f"the Ray cluster at {self.address} is lost: {how}")


def _liveness(ray: Any, address: str) -> _Liveness:
    """Return what looks after the cluster that this process is connected to."""
    proxy = address.startswith("ray://")
    head = None if proxy else _place(ray.get_runtime_context().gcs_address)
    return _Liveness(address, head, lambda: any(node["Alive"] for node in ray.nodes()))


def _answers(place: Place | None) -> bool:
    try:
        if place is not None:
            socket.create_connection(place, EACH).close()
    except OSError:
        return False
    return True


def _place(address: str) -> Place:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16 or "/" in host:
        forms = "local, auto, HOST:PORT or ray://HOST:PORT"
        raise UserError(f"{address!r} is no address of a Ray cluster: {forms}")
    return host.strip("[]"), int(port)


@contextmanager
def _connected(
    ray: Any, address: str, resources: Mapping[str, float], workers: int | None
) -> Iterator[None]:
    """Connect to the cluster, unless this process is connected."""
    if ray.is_initialized():
        connected = ray.get_runtime_context().gcs_address
        if address not in (LOCAL, ANY, connected):  # a process has one cluster
            raise UserError(f"this process is in the Ray cluster at {connected}, not {address}")
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a local cluster reports nothing
    options: dict[str, Any] = {"address": address}
    if address == LOCAL:
        wanted = math.ceil((workers or 1) * resources["CPU"])
        options |= {"num_cpus": max(os.cpu_count() or 1, wanted), "include_dashboard": False}
    try:
        if address not in (LOCAL, ANY):  # Ray itself would try for minutes
            socket.create_connection(_place(address), REACH).close()
        ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise UserError(_refused(address, error)) from error
    try:
        with redirect_stdout(_WithoutRay(sys.stdout)):
            yield
    finally:
        with redirect_stdout(io.StringIO()):  # Ray's last words
            ray.shutdown()


def _refused(address: str, error: Exception) -> str:
    """Say in one line why there is no connection."""
    if address == ANY and isinstance(error, ConnectionError):
        return (
            "no Ray cluster runs on this machine: `ray start --head` starts one, --ray local one "
            "for this search alone"
        )
    reason = getattr(error, "strerror", None) or optional_imports.reason(error)
    token = address not in (LOCAL, ANY) and "RAY_AUTH_MODE" not in os.environ
    hint = "; if it wants a token, set RAY_AUTH_MODE=token" if token else ""
    return f"no Ray cluster at {address}: {reason}{hint}"


@dataclass(frozen=True)
class _WithoutRay:
    """Standard output without what a thread of Ray prints there when workers die."""

    stream: Any

    def write(self, text: str) -> int:
        if threading.current_thread().name.startswith("ray_"):
            return len(text)
        return int(self.stream.write(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def _one_line(ray: Any, address: str) -> Iterator[None]:
    """Turn an error of Ray into one line."""
    try:
        yield
    except (ray.exceptions.RayError, ConnectionError) as error:
        raise SearchFailed(f"the Ray cluster at {address} is lost: {_end(error)}") from error


def _end(error: BaseException) -> str:
    """Return the detail of an error of Ray, without the lines before and the guesses after."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    detail = lines[-1].rpartition("Worker exit detail: ")[2] if lines else type(error).__name__
    return detail.partition(" Some common causes")[0][:MOST]
