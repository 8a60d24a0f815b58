"""How a report writes what it shows, by hand."""

from __future__ import annotations

import math

import pytest

from diswot.reports import formats


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0.0 s"), (61.25, "61.2 s"), (119.96, "120.0 s"), (150, "2.5 min"), (7199, "120.0 min"),
     (9000, "2.5 h"), (None, "-"), ("60", "-"), (math.nan, "-")],
)  # fmt: skip
def test_duration(seconds: object, said: str) -> None:
    assert formats.duration(seconds) == said


def test_counts_and_figures() -> None:
    assert formats.count(278_324) == "278K" and formats.count(None) == "-"
    assert formats.decimal(0.123456) == "0.12346" and formats.decimal(71.25, ".1f") == "71.2"
    assert formats.decimal(math.inf) == formats.decimal(True) == "-"


@pytest.mark.parametrize(
    ("value", "name", "said"),
    [(0.00812, "latency", "8.12 ms"), (0.00083, "latency", "0.83 ms"),
     (1_572_864, "memory", "1.57MB"), (12.5, "other", "12.5"),
     (None, "memory", "-")],
)  # fmt: skip
def test_cost(value: object, name: str, said: str) -> None:
    assert formats.cost(value, name) == said


def test_epochs_and_names() -> None:
    assert [formats.epochs(n) for n in (1, 2)] == ["1 epoch", "2 epochs"]
    assert formats.basename("data/images/") == "images" and formats.basename("digits") == "digits"


def test_passwords_are_masked() -> None:
    assert formats.pretty({"a": "postgresql://me:secret@host/é"}) == (
        '{\n  "a": "postgresql://me:***@host/é"\n}'
    )
