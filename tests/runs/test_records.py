"""What a run holds, by hand."""

from __future__ import annotations

from diswot.runs.records import Candidate, Search

SMALL = Candidate(4, {"a": 1}, "scores", 2.0, None, 100, 200, extra={"latency": 0.5})
LARGE = Candidate(7, {"a": 2}, "scores", 3.0, None, 300)
SAME = Candidate(5, {"a": 3}, "scores", 3.0, None, 300)
OTHERS = (Candidate(1, {"a": 1}, "reused", 2.0), Candidate(2, {"a": 0}, "scores", None))


def test_costs_by_name() -> None:
    names = ("params", "macs", "latency", "memory")
    assert [SMALL.cost(name) for name in names] == [100, 200, 0.5, None]


def test_the_best_first() -> None:
    held = Search({}, {}, (SMALL, LARGE, SAME, *OTHERS), None, None)
    assert held.scored() == [SAME, LARGE, SMALL]


def test_costs_that_a_search_weighs() -> None:
    objectives = ["score", "latency", "params"]
    assert Search({"objectives": objectives}, {}, (), None, None).costs() == ["params", "latency"]
    assert Search({"objectives": 3}, {}, (), None, None).costs() == ["params"]


def test_students_that_were_verified() -> None:
    rows = [{"student": {"params": {}}, "accuracy": 1.0}, {"student": 3}, 4]
    assert Search({}, {"verified": {"trained": rows}}, (), None, None).verified() == rows[:1]
    assert Search({}, {"verified": [1]}, (), None, None).verified() == []
