"""Libraries that are not there, and libraries that raise, reported in one line."""

from __future__ import annotations

import logging
import math

import pytest

from diswot.errors import UserError
from diswot.utils.optional_imports import first_sentence, imported, one_line_errors


def test_module_that_is_there() -> None:
    assert imported("math", "teacher a") is math
    assert imported("logging.handlers", "teacher a").__name__ == "logging.handlers"


@pytest.mark.parametrize(
    ("module", "more", "message"),
    [
        ("no_such_library", (), "data b: needs no_such_library: pip install 'diswot[hf]'"),
        ("no_such_library.part", ("onnx",), "needs no_such_library: pip install 'diswot[onnx]'"),
        ("math.no_such_part", ("x",), "data b: needs math: pip install 'diswot[x]'"),
    ],
)
def test_module_that_is_not_there(module: str, more: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError) as raised:
        imported(module, "data b", *more)

    assert str(raised.value).endswith(message)
    assert isinstance(raised.value.__cause__, ImportError)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one. two"), "ValueError: one"),
        (OSError("  first line\nsecond line"), "OSError: first line"),
        (KeyError("name"), "KeyError: 'name'"),
        (
            RuntimeError("version 1.2 is too old. Take another"),
            "RuntimeError: version 1.2 is too old",
        ),
        (TimeoutError(), "TimeoutError"),
        (TimeoutError(" \n "), "TimeoutError"),
    ],
)
def test_reason_is_the_first_sentence(error: Exception, line: str) -> None:
    assert first_sentence(error) == line


def test_what_a_library_raises_is_one_line() -> None:
    cause = ConnectionError("no network. Try later\nTraceback of ours")

    with pytest.raises(UserError) as raised, one_line_errors("timm:a", "cannot be loaded"):
        raise cause

    assert str(raised.value) == "timm:a cannot be loaded: ConnectionError: no network"
    assert raised.value.__cause__ is cause


@pytest.mark.parametrize("error", [UserError("said already"), KeyboardInterrupt()])
def test_what_is_said_already_and_an_interrupt_pass(error: BaseException) -> None:
    with pytest.raises(type(error)) as raised, one_line_errors("timm:a", "cannot be loaded"):
        raise error

    assert raised.value is error


@pytest.mark.parametrize("fails", [False, True])
def test_logs_are_hushed_meanwhile(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    log, other = logging.getLogger("transformers"), logging.getLogger("of.the.user")
    monkeypatch.setattr(log, "level", logging.INFO)
    monkeypatch.setattr(other, "level", logging.DEBUG)
    inside = []

    try:
        with one_line_errors("hf:a", "cannot be loaded"):
            inside += [log.level, other.level]
            assert not fails, "of the library"
    except UserError as error:
        assert fails and "AssertionError: of the library" in str(error)

    assert inside == [logging.ERROR, logging.DEBUG]
    assert (log.level, other.level) == (logging.INFO, logging.DEBUG)
