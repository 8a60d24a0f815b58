"""What a worker says, with a driver that is a list of messages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from tasks import broken, made, unmade, work

from diswot.errors import SearchFailed, UserError
from diswot.executors import talk
from diswot.executors.packed import Packed
from diswot.executors.protocol import Message


@dataclass
class Driver:
    """Says some things, and then is gone."""

    sayings: list[Message]
    heard: list[Message] = field(default_factory=list)

    def send(self, message: Message) -> None:
        self.heard.append(message)

    def recv(self) -> Message:
        if not self.sayings:
            raise EOFError
        return self.sayings.pop(0)


def test_tasks_are_done_and_questions_asked() -> None:
    driver = Driver([("task", ("add", 1, 2)), ("task", ("ask", "a")), ("answer", 5)])
    with pytest.raises(EOFError):
        talk(driver, Packed.pack(made, work), torch.get_num_threads())

    assert driver.heard == [("ready", None), ("done", 3), ("ask", "a"), ("done", [5])]


@pytest.mark.parametrize(
    ("make", "tasks", "kind", "said"),
    [
        (unmade, [], UserError, "no such teacher"),
        (broken, [], SearchFailed, "a worker failed: RuntimeError: no such teacher"),
        (made, [("raise",)], SearchFailed, "a worker failed: RuntimeError: a mistake of ours"),
    ],
)
def test_last_words(make: Any, tasks: list[Any], kind: type[Exception], said: str) -> None:
    driver = Driver([("task", task) for task in tasks])
    what, error = talk(driver, Packed.pack(make, work), torch.get_num_threads())

    assert what == "failed" and type(error) is kind and str(error) == said
    assert driver.heard == [("ready", None)] * len(tasks)
