"""Which of the best students are worth comparing, by hand."""

from __future__ import annotations

import pytest

from diswot.nas.result import differ, diverse

Params = dict[str, int | str]


def params(text: str) -> Params:
    """`abc` is an architecture of three choices."""
    return {f"choice{place}": letter for place, letter in enumerate(text)}


@pytest.mark.parametrize(
    ("first", "second", "result"),
    [
        ("abc", "abc", False),
        ("abc", "abd", False),
        ("abc", "ade", True),
        ("abcdef", "abcdxy", True),
        ("abcdefghi", "abcdefgxy", False),
        ("abcdefghi", "abcdefxyz", True),
        ("a", "b", True),
        ("ab", "ac", False),
        ("ab", "cd", True),
        ("", "", True),
    ],
)
def test_a_third_of_the_choices_and_two_at_least(first: str, second: str, result: bool) -> None:
    assert differ(params(first), params(second)) == result
    assert differ(params(second), params(first)) == result


def test_a_choice_that_only_one_has_is_different() -> None:
    assert differ(params("abc"), params("abcxy"))
    assert not differ(params("abc"), params("abcx"))


def test_near_duplicates_are_passed_over() -> None:
    ranked = ["aaa", "aab", "aba", "abb", "bbb", "bba", "baa", "bab", "ccc"]
    ranked += [f"zz{letter}" for letter in "abcdefg"]

    assert diverse([params(text) for text in ranked], 3) == [0, 3, 1]
    assert diverse([params(text) for text in ranked * 3], 3) == [0, 3, 5]


def test_only_the_best_quarter_is_looked_at_and_the_best_others_follow() -> None:
    """Of eight, two are the best quarter; four are looked at as four are wanted."""
    ranked = [params(text) for text in ("aaa", "aab", "aac", "aad", "bbb", "ccc", "ddd", "eee")]

    assert diverse(ranked, 4) == [0, 1, 2, 3]
    assert diverse(ranked * 3, 4) == [0, 4, 5, 1]


def test_the_second_is_given_and_the_others_differ_from_it() -> None:
    ranked = [params(text) for text in ("aaa", "aab", "ccc", "bba", "bbb", "bbc")]

    assert diverse(ranked, 4, second=5) == [0, 5, 2, 1]
    assert diverse(ranked, 1, second=5) == [0]


def test_fewer_than_wanted() -> None:
    assert diverse([params("aaa"), params("aab")], 5) == [0, 1]
    assert diverse([], 5) == []
    assert diverse([params("aaa")], 0) == []
