"""The head of a Ray cluster: addresses, what listens there, and when it is taken for lost."""

from __future__ import annotations

import importlib.util
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from diswot.errors import SearchFailed, UserError
from diswot.executors import ray_head
from diswot.executors.ray_head import Head


def test_where_nothing_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        with pytest.raises(UserError, match=rf"^no Ray cluster at .*:{port}: Connection refused"):
            ray_head.reach(f"127.0.0.1:{port}")
    with pytest.raises(UserError, match=r"^no Ray cluster at ray://no-such-host.invalid:1: "):
        ray_head.reach("ray://no-such-host.invalid:1")


@pytest.mark.parametrize(
    ("says", "message"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "something else answers there"),
        (b"SSH-2.0-x\r\n", "something else answers there"),
        (b"", "something else answers there|reset"),
        (None, "timed out"),
    ],
)
def test_where_something_else_listens(
    says: bytes | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_head, "REACH", 0.2 if says is None else 10.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"

        def answer() -> None:
            with server.accept()[0] as caller:
                caller.recv(100)
                if says is None:
                    caller.recv(100)  # until the other side gives up
                else:
                    caller.sendall(says)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(UserError, match=f"^no Ray cluster at {address}: .*({message})"):
            ray_head.reach(address)
        thread.join()


@pytest.mark.parametrize(
    ("address", "mode", "hint"),
    [
        ("10.0.0.1:6379", None, True),
        ("10.0.0.1:6379", "token", False),
        ("local", None, False),
        ("auto", None, False),
    ],
)
def test_a_token_that_may_be_missing(
    address: str, mode: str | None, hint: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    if mode is not None:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    told = ray_head.refused(address, "it failed")
    assert (
        told.startswith(f"no Ray cluster at {address}: it failed")
        and ("RAY_AUTH_MODE=token" in told) == hint
    )


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="no ray here")
def test_this_machine_without_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._private import services

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(services, "find_gcs_addresses", lambda: set())
    monkeypatch.setattr(services, "find_bootstrap_address", lambda folder: None)
    with pytest.raises(UserError, match=r"^no Ray cluster runs on this machine: `ray start"):
        ray_head.here()

    monkeypatch.setattr(services, "find_bootstrap_address", lambda folder: "10.0.0.1:6379")
    assert ray_head.here() == "10.0.0.1:6379"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.2:6379")
    assert ray_head.here() == "10.0.0.2:6379"


@pytest.mark.parametrize(("given", "seconds"), [(None, 40), ("300", 200), ("soon", 40)])
def test_patience(given: str | None, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Less than Ray's own, which a user may set."""
    monkeypatch.delenv(ray_head._PATIENCE, raising=False)
    if given is not None:
        monkeypatch.setenv(ray_head._PATIENCE, given)
    assert ray_head.patience() == seconds


@contextmanager
def listening(port: int = 0) -> Iterator[tuple[str, int]]:
    with socket.create_server(("127.0.0.1", port)) as server:
        yield server.getsockname()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Stands still but for sleep."""
    now = [1000.0]
    monkeypatch.setattr(ray_head.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(
        ray_head.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds)
    )
    yield now


def test_a_head_that_is_silent_for_long_is_lost(clock: list[float]) -> None:
    with listening() as at:
        known = Head("h:1", at)
        known.look()
    clock[0] += 1
    known.look()  # so soon it is not looked at
    for seconds in (5, 20, 15):
        clock[0] += seconds
        known.look()
    with listening(at[1]):
        clock[0] += 30  # one that comes back is as good as ever
        known.look()
    clock[0] += 100
    known.look()
    assert not known.lost

    clock[0] += 40
    with pytest.raises(SearchFailed, match=r"^the Ray cluster at h:1 is lost: its head does not"):
        known.look()
    assert known.lost


def test_nothing_is_begun_while_a_head_is_silent(clock: list[float]) -> None:
    with listening() as at:
        known = Head("h:1", at)
        known.wait()
    begun = clock[0]
    with pytest.raises(SearchFailed, match="its head does not answer"):
        known.wait()

    assert 40 <= clock[0] - begun <= 40 + ray_head.EACH and known.lost


def test_a_node_that_has_ended_is_told_at_once(clock: list[float]) -> None:
    with listening() as at:
        with listening() as node:
            known = Head("h:1", at, node)
            known.look()
        with pytest.raises(SearchFailed, match="its node on this machine has ended"):
            known.look()


def test_a_node_that_the_head_has_given_up_begins_nothing() -> None:
    with listening() as at:
        known = Head("h:1", at, at, lambda: False)
        known.look()
        with pytest.raises(SearchFailed, match="its node on this machine has ended"):
            known.wait()
    assert known.lost


def test_what_is_behind_a_proxy_is_not_looked_at() -> None:
    known = ray_head.head(None, "ray://h:1")
    known.wait()

    assert not known.lost
