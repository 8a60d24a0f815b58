"""Log messages that repeat: the first is shown, the others are counted."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

_log = logging.getLogger("diswot")


class _FirstOnly(logging.Filter):
    """Filter that passes the first message of each text and counts the others."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: dict[str, str] = {}
        self.left_out: Counter[str] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.msg in self.shown:
            self.left_out[record.msg] += 1
            return False
        self.shown[record.msg] = record.getMessage()
        return True


@contextmanager
def repeats_counted() -> Iterator[None]:
    """Show each kind of log message once, and at the end how many others there were."""
    first = _FirstOnly()
    _log.addFilter(first)
    try:
        yield
    finally:
        _log.removeFilter(first)
        for text, count in first.left_out.items():
            _log.warning("%d more like: %s", count, first.shown[text])
