from __future__ import annotations

from collections import Counter

import pytest

from diswot.nas import stopping
from diswot.nas.stopping import Stall


def stopped_after(outcomes: dict[str, int], *, new: bool = True) -> tuple[int, str]:
    """Number of proposals without progress after which a search stops, and the reason."""
    stall, counted = Stall(), Counter(outcomes)
    while not (reason := stall.reason(counted)):
        stall.add(progress=False, new=new)
        counted["rejected"] += 1
    return stall.proposals, reason


def test_without_a_student_it_waits_longest() -> None:
    reason = "the last 1,000 proposals gave no new student within the budget"
    assert stopped_after({}) == stopped_after({"rejected": 5000}) == (1000, reason)


def test_slow_proposals_end_it_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "SLOW_SECONDS", 0.0)
    assert stopped_after({})[0] == 400
    assert stopped_after({"scored": 1, "rejected": 400})[0] == 1000


@pytest.mark.parametrize(
    ("scored", "rejected", "expected"),
    [(10, 0, 200), (10, 90, 200), (10, 190, 400), (148, 592, 200), (1, 99, 1000)],
)
def test_with_students_it_waits_for_twenty_times_what_one_took(
    scored: int, rejected: int, expected: int
) -> None:
    assert stopped_after({"scored": scored, "rejected": rejected})[0] == expected


def test_known_proposals_end_it() -> None:
    reason = "the last 50 proposals were known, and the sampler has no others"
    assert stopped_after({"scored": 1}, new=False) == (50, reason)


def test_a_sampler_without_others_ends_it() -> None:
    assert Stall(exhausted=True).reason(Counter(scored=1)) == "the sampler has no other proposals"


def test_progress_begins_anew() -> None:
    stall = Stall()
    for new in (True, False, False):
        stall.add(progress=False, new=new)
    assert (stall.proposals, stall.repeated) == (3, 2)
    stall.add(progress=True, new=True)
    assert (stall.proposals, stall.repeated) == (0, 0)


def test_nothing_but_failures() -> None:
    assert Stall().reason(Counter(failed=19)) == ""
    assert Stall().reason(Counter(failed=20)) == "all of 20 candidates failed"
    assert Stall().reason(Counter(failed=20, scored=1)) == ""
