"""Devices by name, and scores that do not depend on them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pytest
import torch
import toyspaces
from elsewhere import DEVICE, SecondDevice

from diswot.errors import UserError
from diswot.models.initialization import INITS
from diswot.proxies.registry import PROXIES
from diswot.proxies.scorer import scorer
from diswot.spaces.registry import build_network
from diswot.utils import devices

PARAMS = {"width": 4, "kernel": 3, "depth": 2, "act": "relu"}
SLIPS = ("ab", "vkdnw", "epe_nas")  # new_tensor, forward mode, tolist: past the second device

no_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


def given(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(devices, "accelerators", lambda: list(names))


@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:0", "cuda:1"])
def test_devices_that_are_here(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, "cuda:0", "cuda:1")

    assert str(devices.get_device(name)) == name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cuda:2", "^no device cuda:2 here; there is: cpu, cuda:0, cuda:1$"),
        ("meta", "^no device meta here"),
        ("mps", "^no device mps here"),
        ("gpu", "^no such device: 'gpu'; devices are cpu, cuda, cuda:1, ...$"),
        ("", "^no such device: ''"),
        ("cuda:", "^no such device"),
        ("cuda:-1", "^no such device"),
        ("cuda:99999999999", "^no such device"),
        ("cpu\x00", "^no such device"),
        ("cuda:0\n", "^no such device"),
    ],
)
def test_devices_that_are_not(name: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, "cuda:0", "cuda:1")

    with pytest.raises(UserError, match=message):
        devices.get_device(name)


def test_the_processor_is_always_here() -> None:
    assert devices.available()[0] == "cpu"
    assert len(devices.accelerators()) == torch.accelerator.device_count()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("all", ("cuda:0", "cuda:1")),
        ("cuda:1", ("cuda:1",)),
        (" cuda:1, cuda:0 ", ("cuda:1", "cuda:0")),
        ("cuda:0,cuda:0", ("cuda:0", "cuda:0")),
        ("cpu", ("cpu",)),
    ],
)
def test_several(text: str, names: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, "cuda:0", "cuda:1")

    assert devices.parse_devices(text) == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("all", "no GPU here"),
        ("cpu,cuda:0", "^score on devices of one kind, not on cpu and cuda$"),
        ("cpu,", "one kind|no such device"),
        ("cuda:0", "^no device cuda:0 here; there is: cpu$"),
    ],
)
def test_several_that_are_not(text: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch)

    with pytest.raises(UserError, match=message):
        devices.parse_devices(text)


def test_convolutions_of_cuda_are_exact_and_the_setting_is_put_back() -> None:
    backend = torch.backends.cudnn
    before = backend.enabled, backend.deterministic, backend.allow_tf32, backend.benchmark
    with pytest.raises(KeyError), devices.exact(torch.device("cuda:0")):
        assert not backend.allow_tf32 and backend.deterministic and not backend.benchmark
        assert backend.enabled == before[0]
        raise KeyError

    assert before == (backend.enabled, backend.deterministic, backend.allow_tf32, backend.benchmark)
    with devices.exact(torch.device("cpu")):
        assert backend.allow_tf32 == before[2]


@no_cuda
@pytest.mark.parametrize("init", INITS)
def test_cuda_scores_as_the_processor_does(init: str) -> None:
    """Not run where this was written: no GPU."""
    proxies = ["diswot", "default", "semantic", "relation", "synflow", "zico", "params"]
    found = []
    for device in ("cpu", "cuda"):
        fixed = scorer(toyspaces.teacher(), [toyspaces.batch()], init=init, device=device)
        found.append(
            fixed.score(fixed.students(partial(build_network, toyspaces.tiny, PARAMS)), proxies)
        )

    for name in proxies:
        assert found[1][name] == pytest.approx(found[0][name], rel=1e-4)


@pytest.mark.parametrize("init", INITS)
def test_all_is_computed_on_the_device_that_is_given(init: str) -> None:
    """On a second device with the processor's arithmetic, where mixing devices is an error."""
    names = [name for name in PROXIES if name not in SLIPS]
    here = scorer(toyspaces.teacher(), [toyspaces.batch()], init=init)
    build = partial(build_network, toyspaces.tiny, PARAMS)
    with SecondDevice() as second:
        there = scorer(toyspaces.teacher(), [toyspaces.batch()], init=init, device=DEVICE)
        found = there.score(there.students(build), names)

    assert there.device == DEVICE and second.count > 1000
    for name, values in here.score(here.students(build), names).items():
        assert found[name] == pytest.approx(values, rel=1e-9), name


def test_a_candidate_is_drawn_here_and_scored_there() -> None:
    build = partial(build_network, toyspaces.tiny, PARAMS)
    state = torch.get_rng_state()
    with SecondDevice():
        there = scorer(toyspaces.teacher(), [toyspaces.batch()], device=DEVICE)
        student = there.fresh(build)
        weights = [each.clone() for each in student.parameters()]
        assert {each.device.type for each in student.parameters()} == {"cpu"}
        there.score([student], ["relation"])

    assert {each.device for each in student.parameters()} == {DEVICE}
    for drawn, moved in zip(weights, student.parameters(), strict=True):
        assert torch.equal(drawn, moved.inner)
    assert torch.equal(torch.get_rng_state(), state)


def test_two_devices_do_not_mix() -> None:
    with SecondDevice(), pytest.raises(RuntimeError, match="on two devices"):
        torch.ones(2, device=DEVICE) + torch.ones(2)
