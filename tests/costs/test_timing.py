from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import detectors
import pytest
import torch
import toys
from torch import Tensor, nn

from diswot.costs import timing
from diswot.costs.latency import Setting
from diswot.costs.timing import LEAST, MOST, WARM_UP, clock, spread, timed, timed_in_turn

SHAPE = (3, 8, 8)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Callable[[Iterator[float], Iterator[bool]], None]:
    """A clock that a run moves by so much, and a system that interrupts some runs."""

    def make(takes: Iterator[float], interrupts: Iterator[bool]) -> Callable[[], None]:
        now, count = [0.0], [0]

        def call() -> None:
            now[0] += next(takes)
            count[0] += next(interrupts)

        monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
        monkeypatch.setattr(timing, "_interruptions", lambda: count[0])
        return call

    return make


def clocked(call: Callable[[], None]) -> timing.Timing:
    return timed(call, lambda: timing.time.perf_counter())


def test_median_and_tenths_without_warming_up(world) -> None:
    takes = itertools.chain([9.0] * WARM_UP, (0.01 * n for n in range(1, 10)))

    found = clocked(world(takes, itertools.repeat(False)))

    assert (found.runs, found.disturbed) == (LEAST, 0)
    assert found.seconds == pytest.approx(0.05)
    assert (found.low, found.high) == pytest.approx((0.01, 0.09))


def test_quick_runs_are_many(world) -> None:
    found = clocked(world(itertools.repeat(1e-3), itertools.repeat(False)))
    assert found.runs == pytest.approx(timing.SECONDS / 1e-3, abs=1)

    assert clocked(world(itertools.repeat(1e-9), itertools.repeat(False))).runs == MOST


def test_disturbed_runs_are_left_out(world) -> None:
    """Every other run is interrupted and takes three times as long."""
    takes, interrupts = itertools.cycle([0.01, 0.03]), itertools.cycle([False, True])

    found = clocked(world(takes, interrupts))

    assert found.seconds == found.high == pytest.approx(0.01)
    assert found.runs == LEAST and found.disturbed in (LEAST - 1, LEAST)


def test_where_all_are_disturbed_all_count(world) -> None:
    found = clocked(world(itertools.repeat(0.01), itertools.repeat(True)))

    assert (found.seconds, found.disturbed) == (pytest.approx(0.01), 0)
    assert found.runs == pytest.approx(3 * timing.SECONDS / 0.01, abs=1)


def test_two_calls_are_timed_in_turn(world) -> None:
    """The machine is slower in each turn, and both calls are slower in the same turn."""
    order: list[str] = []
    tick = world((0.5 * n for n in itertools.count(1)), itertools.repeat(False))

    def first() -> None:
        order.append("first")
        tick()

    def second() -> None:
        order.append("second")
        tick()

    one, two = timed_in_turn(first, second, lambda: timing.time.perf_counter())

    assert order == ["first", "second"] * (WARM_UP + LEAST)
    expected = [0.5 * n for n in range(2 * WARM_UP + 1, 2 * (WARM_UP + LEAST) + 1)]
    assert (one, two) == (pytest.approx(expected[::2]), pytest.approx(expected[1::2]))


def test_spread() -> None:
    assert spread([5.0, 1.0, 2.0, 9.0]) == (3.5, 1.0, 9.0)
    assert spread([float(n) for n in range(100, 0, -1)]) == (50.5, 11.0, 90.0)


def test_one_thread_is_timed_by_the_processor() -> None:
    assert clock(Setting(SHAPE)) == ("processor time of the thread", timing.time.thread_time)
    for other in (Setting(SHAPE, threads=2), Setting(SHAPE, device="cuda")):
        assert clock(other) == ("wall clock", timing.time.perf_counter)


class Looks(nn.Module):
    """Notes how it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.seen: list[tuple[object, ...]] = []

    def forward(self, images: Tensor) -> Tensor:
        form = torch.channels_last
        kinds = [t.is_contiguous(memory_format=form) for t in (images, self.conv.weight)]
        self.seen.append((*kinds, images.dtype, self.training, torch.is_inference_mode_enabled()))
        return self.norm(self.conv(images)).mean((2, 3))


def test_torch_runs_one_image_channels_last_in_float32_and_evaluation_mode() -> None:
    model = Looks().half()

    call = timing.with_torch(model, SHAPE, Setting(SHAPE))
    call()

    assert model.seen == [(True, True, torch.float32, False, True)]


def test_onnx_runs_the_same_network() -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = toys.seeded(toys.LinearHead)

    (logits,) = timing.with_onnx(model, SHAPE, Setting(SHAPE, engine="onnx"))()

    assert logits.shape == (1, toys.CLASSES)


def test_onnx_runs_a_detector_with_what_selects_its_boxes() -> None:
    """The boxes themselves are held to those of torch in the tests of the export."""
    pytest.importorskip("onnxruntime")
    shape = (3, *detectors.SIZE)
    boxes, labels, scores = timing.with_onnx(detectors.ssd(), shape, Setting(shape, "onnx"))()
    assert boxes.shape == (len(scores), 4) and len(labels) == len(scores) > 0
