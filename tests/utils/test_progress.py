"""Progress in lines and in bars."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable

import pytest

from diswot.utils import progress as module


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def wait_for(there: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not there():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_line_for_what_is_worth_one(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    with module.shown_progress() as advance:
        advance("training", 1, 6, "epoch 1 of 2")
        advance("training", 3, 6, "epoch 1 of 2, loss 1.5", line=True)
        advance("training", 4, 6)
    assert shown.getvalue() == "training 3 of 6: epoch 1 of 2, loss 1.5\n"


def test_a_line_an_interval_without_any_event(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setattr(module, "INTERVAL", 0.05)
    with module.shown_progress() as advance:
        wait_for(lambda: shown.getvalue().count("preparing (") >= 2)
        advance("scoring", 3, 9)
        wait_for(lambda: "scoring 3 of 9 (" in shown.getvalue())
    before = shown.getvalue()
    time.sleep(0.15)
    assert shown.getvalue() == before, "a line after the end"


def test_bars_of_two_kinds_of_work(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    with module.shown_progress() as advance:
        advance("reading images", 500, 1000)
        advance("reading images", 1000, 1000)
        advance("training", 1, 7, "test [b]50[/b] %")
    text = shown.getvalue()
    assert "reading images" in text and "1000/1000" in text
    assert "training" in text and "1/7" in text and "test [b]50[/b] %" in text
