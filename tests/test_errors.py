"""What is said of a name that is unknown."""

from __future__ import annotations

import pytest

from diswot.errors import unknown


@pytest.mark.parametrize(
    ("name", "count", "said"),
    [
        ("zzz", 2, "unknown teacher 'zzz'; known: net000, net001"),
        ("net00", 2, "unknown teacher 'net00'; did you mean net001 or net000?"),
        ("zzz", 75, "unknown teacher 'zzz'; known: net000, net009, net018, net027, net036, "),
    ],
)
def test_the_nearest_names_or_some(name: str, count: int, said: str) -> None:
    message = str(unknown("teacher", name, [f"net{i:03}" for i in range(count)]))
    assert message.startswith(said)
    assert message.endswith("and 67 more") == (count == 75)
    assert len(message) < 160
