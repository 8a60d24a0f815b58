from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from diswot.costs import timing
from diswot.costs.timing import LEAST, MOST, WARM_UP, median_interval, spread, timed, timed_in_turn

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


def test_the_median_and_its_interval_without_warming_up(world) -> None:
    """Runs of 10 to 90 ms, for 2 seconds: 42 runs, whose interval is of the ranks 15 to 29."""
    takes = itertools.chain([9.0] * WARM_UP, itertools.cycle(0.01 * n for n in range(1, 10)))

    found = clocked(world(takes, itertools.repeat(False)))

    assert (found.runs, found.disturbed) == (42, 0)
    assert found.seconds == pytest.approx(0.05)
    assert (found.low, found.high) == pytest.approx((0.03, 0.06))


def test_runs_are_repeated_until_the_interval_is_known(world) -> None:
    """Runs of 10 ms: the first eight of them slower, which the median does not forget at once."""
    takes = itertools.chain([9.0] * WARM_UP, [0.02] * 8, itertools.repeat(0.01))

    found = clocked(world(takes, itertools.repeat(False)))

    assert found.seconds == found.low == found.high == pytest.approx(0.01)
    assert timing.SECONDS / 0.01 < found.runs < timing.MOST_SECONDS / 0.01


def test_interval_of_a_median_by_ranks() -> None:
    """The ranks 40 and 61 of 100, as tables of the sign test have them."""
    assert median_interval([float(n) for n in range(100, 0, -1)]) == (50.5, 40.0, 61.0)
    assert median_interval([3.0]) == (3.0, 3.0, 3.0)


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
