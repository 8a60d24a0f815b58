"""What a search shows while it runs."""

from __future__ import annotations

from typing import Any

import pytest

import diswot
from diswot.nas.progress import SearchProgress, show_progress
from diswot.utils import progress as module


def test_the_best_score_and_what_led_nowhere() -> None:
    calls: list[Any] = []

    def advance(*call: Any, line: bool = False) -> None:
        calls.append(call)

    show_progress(advance, SearchProgress(0, 9, None))
    show_progress(advance, SearchProgress(4, 9, 1.23456, 1200, 10))
    note = "best 1.2346, 1,200 outside the budget, no new student in the last 10 proposals"
    assert calls == [("scoring", 0, 9, ""), ("scoring", 4, 9, note)]


def test_a_search_from_python_shows_it_on_request(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "INTERVAL", 0.001)
    space = diswot.create_space("s0", num_classes=10, img_size=8)
    batch = diswot.create_dataset("digits", img_size=8).batch(10)
    for progress in (False, True):
        seen: list[SearchProgress] = []
        diswot.search(None, space, batch, n_trials=3, scoring="params", callbacks=[seen.append],
                      progress=progress)  # fmt: skip
        out, err = capsys.readouterr()
        assert seen[-1].done == 3 and out == ""
        assert ("scoring " in err) == progress, err
