"""What a worker says to its driver, from its start to its end."""

from __future__ import annotations

import sys
from typing import Any

from diswot.errors import SearchFailed, UserError
from diswot.executors.packed import Packed
from diswot.executors.protocol import Channel, Message


def talk(pipe: Channel, packed: Packed, threads: int) -> Message:
    """What a worker says from its start on; returns its last words, for the driver to raise."""

    def ask(question: Any) -> Any:
        pipe.send(("ask", question))
        return pipe.recv()[1]

    try:
        make, work = packed.unpack()
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(threads)
        held = make()
    except Exception as error:  # whatever a user's code raises is told in one line
        return _last_words(error)
    pipe.send(("ready", None))
    try:
        while True:
            pipe.send(("done", work(held, pipe.recv()[1], ask)))
    except (EOFError, OSError):
        raise
    except Exception as error:
        return _last_words(error)


def _last_words(error: Exception) -> Message:
    if isinstance(error, UserError):
        return "failed", error
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return "failed", SearchFailed(f"a worker failed: {text}")
