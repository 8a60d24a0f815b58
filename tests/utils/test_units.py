from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from diswot.errors import UserError
from diswot.utils.units import parse_bytes, parse_seconds, show_bytes, show_seconds


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("500000", 5e5),
        ("64MB", 64e6),
        ("64MiB", 64 * 2**20),
        ("64mb", 64e6),
        ("1.5k", 1500),
        ("1KiB", 1024),
        (" .5GB ", 5e8),
        ("2gib", 2**31),
        ("12B", 12),
        ("1e3KB", 1e6),
    ],
)
def test_parse_bytes(text: str, number: float) -> None:
    assert parse_bytes(text) == number


@pytest.mark.parametrize(
    "text", ["", "MB", "-1MB", "64 MB", "64Mi", "64MBB", "64TB", "8ms", "٣", "1\u212aB", "0MB"]
)  # fmt: skip
def test_junk_is_no_size(text: str) -> None:
    with pytest.raises(UserError, match=r"size such as 64MB|above zero"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("8ms", 0.008),
        ("0.5s", 0.5),
        ("900us", 9e-4),
        ("900µs", 9e-4),
        ("900μs", 9e-4),
        (" 2s ", 2),
        ("1e2ms", 0.1),
        ("9ms", 0.009),  # 9 * 1e-3 is another number
    ],
)
def test_parse_seconds(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "8", "ms", "8 ms", "8m", "8MS", "-8ms", "8min", "0s", "٣ms"])
def test_a_time_needs_its_unit(text: str) -> None:
    with pytest.raises(UserError, match=r"no time with its unit, such as 8ms|above zero"):
        parse_seconds(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.00812, "8.12ms"),
        (2, "2s"),
        (0.9996, "1s"),
        (0.9994, "999ms"),
        (99.96e-6, "100us"),
        (999.6e-6, "1ms"),
        (1.234e-7, "0.123us"),
        (61.2345, "61.2s"),
    ],
)
def test_show_seconds(seconds: float, text: str) -> None:
    assert show_seconds(seconds) == text


@given(st.floats(1e-6, 100))
@example(0.0009995)
def test_a_time_that_is_shown_is_read_back(seconds: float) -> None:
    assert parse_seconds(show_seconds(seconds)) == pytest.approx(seconds, rel=0.00501)


@given(st.integers(1, 10**12))
def test_a_size_that_is_shown_is_read_back(number: int) -> None:
    assert parse_bytes(show_bytes(number)) == pytest.approx(number, rel=0.00501)


@given(st.text(max_size=8))
@example("1e99GiB")
def test_any_text_is_a_number_or_told_in_one_line(text: str) -> None:
    for parse in (parse_bytes, parse_seconds):
        try:
            assert 0 < parse(text) < math.inf
        except UserError as error:
            assert len(str(error).splitlines()) == 1
