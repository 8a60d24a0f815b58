"""Log messages that repeat are counted."""

from __future__ import annotations

import logging

import pytest

from diswot.utils.repeats import repeats_counted


def test_the_first_of_each_kind_is_shown_and_the_others_are_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = logging.getLogger("diswot")
    with repeats_counted():
        for number in range(4):
            log.warning("layer %d is odd", number)
        log.warning("another")
    log.warning("layer %d is odd", 9)

    shown = ["layer 0 is odd", "another", "3 more like: layer 0 is odd", "layer 9 is odd"]
    assert caplog.messages == shown
    assert not log.filters
