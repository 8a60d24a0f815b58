"""What is said of a name that is unknown, or in the wrong place."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

import diswot
from diswot.data.dataset import Batch
from diswot.errors import UserError, first_line, unknown


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


def test_the_first_line_of_an_error_or_its_type() -> None:
    assert first_line(ValueError("no file\nat all")) == "no file"
    assert first_line(KeyError()) == "KeyError"


def test_a_name_in_place_of_a_network_is_one_clear_error() -> None:
    net, batch = nn.Linear(2, 2), Batch(torch.zeros(2, 3, 8, 8), torch.tensor([0, 1]))
    calls = {
        "teacher": [
            lambda: diswot.search("resnet20", lambda trial: net, batch),  # type: ignore[arg-type]
            lambda: diswot.distill("resnet20", net, None),  # type: ignore[arg-type]
            lambda: diswot.score("resnet20", net, batch, ["kd"]),  # type: ignore[arg-type]
            lambda: diswot.inherit("resnet20", net),  # type: ignore[arg-type]
        ],
        "student": [
            lambda: diswot.distill(net, "resnet20", None),  # type: ignore[arg-type]
            lambda: diswot.score(net, "resnet20", batch, ["kd"]),  # type: ignore[arg-type]
            lambda: diswot.inherit(net, "resnet20"),  # type: ignore[arg-type]
        ],
        "model": [lambda: diswot.observe("resnet20", *batch)],  # type: ignore[arg-type]
    }
    made = re.escape("a str; make it: diswot.create_teacher('resnet20', num_classes=...)")
    for role, attempts in calls.items():
        for attempt in attempts:
            with pytest.raises(UserError, match=f"^the {role} must be a network, not {made}$"):
                attempt()
    with pytest.raises(UserError, match=r"^the student must be a network, not a int$"):
        diswot.inherit(net, 3)  # type: ignore[arg-type]
