"""Messages between a driver and its workers."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from diswot.errors import SearchFailed, UserError, one_line
from diswot.executors.protocol import Do, Make
from diswot.utils import user_code


@dataclass(frozen=True)
class Payload:
    """The user's files and the pickled function that start a worker."""

    files: tuple[user_code.UserFile, ...]
    pickled: bytes

    @classmethod
    def pack(cls, make: Make, dumps: Callable[[Any], bytes] = pickle.dumps) -> Self:
        """Pack a function and all that it holds.

        Raises:
            UserError: The function cannot be pickled.
        """
        try:
            return cls(user_code.loaded(), dumps(make))
        except Exception as error:  # pickling raises errors of any kind
            raise UserError(
                f"workers need a teacher, a space and a score that can be pickled, as functions of "
                f"a module can: {one_line(error)}"
            ) from error

    def do(self, threads: int) -> Do:
        """Make a worker in this process; return the function that does tasks."""
        os.environ["OMP_NUM_THREADS"] = str(threads)  # before torch is imported
        for source in self.files:
            user_code.load_file(source)
        make: Make = pickle.loads(self.pickled)
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(threads)
        return make()


@dataclass(frozen=True)
class Reply:
    """A worker's message: a result, an error or its death.

    Attributes:
        value: What the task returned; None of a worker that is ready.
        error: Error of a worker, for the driver to raise.
        death: How the worker died, if it did.
    """

    value: Any = None
    error: UserError | SearchFailed | None = None
    death: str = ""


def attempt(function: Callable[..., Any], *arguments: Any, prefix: str = "") -> Reply:
    """Call a function in a worker; an error becomes one line, which any process can unpickle."""
    try:
        return Reply(function(*arguments))
    except Exception as error:  # users' code raises errors of any kind
        return Reply(error=_plain(error, prefix))


def write(reply: Reply) -> bytes:
    """Pickle a reply by value."""
    try:
        return pickle.dumps(reply)
    except Exception as error:  # pickling raises errors of any kind
        return pickle.dumps(Reply(error=_plain(error)))


def read(data: bytes) -> Reply:
    """Unpickle a reply."""
    try:
        reply: Reply = pickle.loads(data)
    except Exception as error:  # unpickling raises errors of any kind
        return Reply(
            error=SearchFailed(f"a worker's result cannot be unpickled: {one_line(error)}")
        )
    return reply


def _plain(error: Exception, prefix: str = "") -> UserError | SearchFailed:
    for kind in (UserError, SearchFailed):
        if isinstance(error, kind):
            return kind(f"{prefix}{error}")
    return SearchFailed(f"{prefix}a worker failed: {one_line(error)}")
