"""Knowledge distances: pure functions of what was observed of a teacher and of a student.

Each serves three masters: its negative at initialisation is a zero-cost proxy, during training it
is a loss, on an accuracy table it is a column of the rank study.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from diswot.errors import unknown
from diswot.knowledge.logits import kd
from diswot.knowledge.relation import relation
from diswot.knowledge.semantic import semantic
from diswot.observe import Observation

Distance = Callable[[Observation, Observation], Tensor]


@dataclass(frozen=True)
class Knowledge:
    """A knowledge distance and its facts.

    Attributes:
        distance: Of teacher and student, a differentiable scalar; smaller is more alike.
        summary: One line.
        paper: Where it is from.
        same_width: Whether teacher and student need the same number of channels.
    """

    distance: Distance
    summary: str
    paper: str
    same_width: bool = False


KNOWLEDGE: dict[str, Knowledge] = {
    "semantic": Knowledge(
        semantic, "channel correlations of class gradients", "DisWOT, CVPR 2023", same_width=True
    ),
    "relation": Knowledge(relation, "sample correlations of last maps", "DisWOT, CVPR 2023"),
    "kd": Knowledge(kd, "softened outputs, temperature 4", "Hinton et al., 2015"),
}


def get(name: str) -> Knowledge:
    """The knowledge distance of that name; an unknown name is a `UserError` with the nearest."""
    if name not in KNOWLEDGE:
        raise unknown("knowledge distance", name, KNOWLEDGE)
    return KNOWLEDGE[name]
