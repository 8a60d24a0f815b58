"""The head of a Ray cluster: where it is, and whether it answers.

Ray itself waits for a lost head for a minute, or as long as it is told, and then ends the process
from within, wherever it is; without a word where the node of this machine is lost. So a search
looks itself, gives up sooner, and asks Ray for nothing while the head does not answer.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from diswot.errors import SearchFailed, UserError

LOCAL, ANY = "local", "auto"
REACH = 10.0  # seconds for a cluster's port to answer
EACH = 2.0  # seconds between looks at a head
ENDED = "its node on this machine has ended"

_PATIENCE = "RAY_gcs_rpc_server_reconnect_timeout_s"  # Ray's own, 60 if not given
_TOKEN = "; if it wants a token, set RAY_AUTH_MODE=token"
_FORMS = "local, auto, HOST:PORT or ray://HOST:PORT"
_SETTINGS = b"\x04"  # a kind of frame, with which both sides of HTTP/2 begin (RFC 9113, 3.4)
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0" + _SETTINGS + b"\0" * 5


def place(address: str) -> tuple[str, int]:
    """Host and port.

    Raises:
        UserError: It is none.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16 or "/" in host:
        raise UserError(f"{address!r} is no address of a Ray cluster: {_FORMS}")
    return host.strip("[]"), int(port)


def reach(address: str) -> None:
    """Refuse an address where nothing listens, or something else; Ray itself would try for long.

    Raises:
        UserError: That is so.
    """
    try:
        with socket.create_connection(place(address), REACH) as there:
            there.settimeout(REACH)
            there.sendall(_GREETING)
            answer = there.recv(9)
    except OSError as error:
        raise UserError(f"no Ray cluster at {address}: {error.strerror or error}") from error
    if answer[3:4] != _SETTINGS and "RAY_USE_TLS" not in os.environ:
        raise UserError(f"no Ray cluster at {address}: something else answers there")


def here() -> str:
    """The address of the cluster of this machine, which may have ended without a word.

    Raises:
        UserError: There is none.
    """
    from ray._private import services

    try:
        return str(services.get_ray_address_from_environment(ANY, None))
    except ConnectionError as error:
        raise UserError(
            "no Ray cluster runs on this machine: `ray start --head` starts one, --ray local one "
            "for this search alone"
        ) from error


def refused(address: str, reason: str) -> str:
    """That there is no connection; Ray says no more of a missing token than that it failed."""
    hint = "" if address in (LOCAL, ANY) or "RAY_AUTH_MODE" in os.environ else _TOKEN
    return f"no Ray cluster at {address}: {reason}{hint}"


def patience() -> float:
    """Seconds until a head that does not answer is taken for lost: two thirds of Ray's own."""
    given = os.environ.get(_PATIENCE, "")
    return (float(given) if given.isdecimal() else 60.0) * 2 / 3


@dataclass
class Head:
    """Looks whether a head answers, and the node of this machine.

    Attributes:
        address: As it was named.
        at: Host and port; none of a cluster that is reached through a proxy.
        node: The same of the node of this machine.
        counted: Whether the head counts that node among the living, which may end before its port.
        lost: Whether Ray is not to be asked for anything any more.
    """

    address: str
    at: tuple[str, int] | None = None
    node: tuple[str, int] | None = None
    counted: Callable[[], bool] = lambda: True
    lost: bool = False
    _next: float = 0.0
    _silent: float | None = None  # since when

    def look(self) -> None:
        """See whether they answer: the node each time, for Ray ends a process that asks a dead one.

        Raises:
            SearchFailed: The head has not for too long, or the node is gone.
        """
        if _failure(self.node) is ConnectionRefusedError:  # of a slow one it is another
            self._lose(ENDED)
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + EACH
        if _failure(self.at) is None:
            self._silent = None
            return
        self._silent = self._silent or now
        if now - self._silent >= patience():
            self._lose("its head does not answer")

    def wait(self) -> None:
        """Until the head answers: before Ray is asked for something new.

        Raises:
            SearchFailed: As of `look`.
        """
        self._next = 0.0
        self.look()
        while self._silent is not None:
            time.sleep(EACH)
            self.look()
        if not self.counted():
            self._lose(ENDED)

    def _lose(self, how: str) -> None:
        self.lost = True
        raise SearchFailed(f"the Ray cluster at {self.address} is lost: {how}")


def _failure(at: tuple[str, int] | None) -> type[OSError] | None:
    """How a connection fails, if it does."""
    try:
        if at is not None:
            socket.create_connection(at, EACH).close()
    except OSError as error:
        return type(error)
    return None


def head(ray: Any, address: str) -> Head:
    """Of the cluster that this process is connected to.

    Args:
        ray: The module.
        address: As it was named.
    """
    if address.startswith("ray://"):
        return Head(address)
    here = ray.get_runtime_context().get_node_id()
    gcs = place(ray.get_runtime_context().gcs_address)
    node = _node(ray, here)
    if node is None:
        return Head(address, gcs)
    at = node["NodeManagerAddress"], node["NodeManagerPort"]
    return Head(address, gcs, at, lambda: (_node(ray, here) or {"Alive": False})["Alive"])


def _node(ray: Any, number: str) -> dict[str, Any] | None:
    nodes: list[dict[str, Any]] = ray.nodes()
    return next((node for node in nodes if node["NodeID"] == number), None)
