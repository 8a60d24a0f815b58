from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
import toys
from toyspaces import batch

from diswot.errors import UserError
from diswot.models.initialization import INHERITED
from diswot.models.registry import create_teacher
from diswot.observation.observe import Observation
from diswot.proxies.agreement import agreement, agreement_top1
from diswot.proxies.candidate import Candidate
from diswot.proxies.registry import PROXIES
from diswot.proxies.scorer import score

NAMES = ["agreement", "agreement_top1"]


def candidate(teacher: list[list[float]], student: list[list[float]]) -> Candidate:
    """A candidate of which only the logits are seen."""

    def seen(logits: list[list[float]]) -> Observation:
        return replace(toys.observation(0, size=len(logits)), logits=torch.tensor(logits))

    found = Candidate(torch.nn.Identity(), seen(teacher), batch(), 0)
    vars(found)["_pass"] = seen(student), {}
    return found


def test_by_hand() -> None:
    """Two rows of two classes: (3/4, 1/4) against (1/2, 1/2), and equal predictions."""
    three = math.log(3.0)
    given = candidate([[three, 0.0], [0.0, 1.0]], [[-1.0, -1.0], [5.0, 6.0]])
    divergence = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)

    assert agreement(given) == pytest.approx(-divergence / 2, rel=1e-5)
    assert agreement_top1(candidate([[1, 0, 2], [1, 0, 0]], [[0, 1, 3], [0, 2, 1]])) == 0.5


def test_it_is_no_distance_but_a_divergence_from_the_teacher() -> None:
    """KL is not symmetric: p log p / q with p the teacher's."""
    one, other = [[math.log(9.0), 0.0]], [[0.0, 0.0]]

    there = 0.9 * math.log(1.8) + 0.1 * math.log(0.2)
    back = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    assert agreement(candidate(one, other)) == pytest.approx(-there, rel=1e-5)
    assert agreement(candidate(other, one)) == pytest.approx(-back, rel=1e-5)


def test_a_network_agrees_with_itself() -> None:
    model = create_teacher("resnet20", toys.CLASSES, 8)

    assert score(model, copy.deepcopy(model), batch(8), NAMES) == {
        "agreement": 0.0,
        "agreement_top1": 1.0,
    }


def test_other_classes() -> None:
    for name in NAMES:
        with pytest.raises(UserError, match="one number of classes: teacher 3, student 2"):
            PROXIES[name].score(candidate([[1.0, 2.0, 3.0]], [[1.0, 2.0]]))


def test_both_look_at_inherited_weights() -> None:
    looking = {name for name, row in PROXIES.items() if row.init == INHERITED}
    assert looking == {*NAMES, "default_inherited"}
