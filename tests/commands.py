"""Runs the command line in a test, and holds it to its contract."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest


class Ran(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.status == 0, self.err
        assert self.out.count("\n") == 1, self.out
        return json.loads(self.out, parse_constant=pytest.fail)

    def mistake(self, status: int = 2) -> str:
        """The one line that tells of it."""
        assert self.status == status and self.out == "", self
        assert self.err.startswith("diswot: ") and self.err.count("\n") == 1, self.err
        return self.err.removeprefix("diswot: ").rstrip("\n")


Run = Callable[..., Ran]


def without_waiting(err: str) -> str:
    """Standard error without the lines that only a slow machine prints."""
    return re.sub(r"^.* \(\d+ s so far\)\n", "", err, flags=re.MULTILINE)


def call(line: str, *more: str, **options: Any) -> Ran:
    """Runs a command line in a process of its own."""
    command = [sys.executable, "-m", "diswot", *shlex.split(line), *more]
    ran = subprocess.run(command, capture_output=True, text=True, **options)
    return Ran(ran.returncode, ran.stdout, without_waiting(ran.stderr))
