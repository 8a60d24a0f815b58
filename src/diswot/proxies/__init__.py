"""Scores of a student that need no training, the table of them, and how to compute them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from diswot import knowledge
from diswot.data import Batch
from diswot.errors import UserError, unknown
from diswot.initialise import TEACHER, fresh
from diswot.observe import Observation, observe
from diswot.proxies import capacity
from diswot.proxies.candidate import Candidate
from diswot.proxies.composite import diswot

Score = Callable[[Candidate], float]


@dataclass(frozen=True)
class Proxy:
    """A training-free score and its facts. Higher is better for every one of them.

    Attributes:
        score: Of a candidate.
        summary: One line.
        paper: Where it is from.
        needs_teacher: Whether it compares with a teacher.
        needs_forward: Whether it looks at a forward pass, and so depends on images and weights.
    """

    score: Score
    summary: str
    paper: str
    needs_teacher: bool = False
    needs_forward: bool = False


def _closeness(name: str, row: knowledge.Knowledge) -> Proxy:
    """A knowledge distance at initialisation, negated, as a proxy."""

    def score(candidate: Candidate) -> float:
        return -float(row.distance(candidate.teacher, candidate.observation))

    return Proxy(score, f"minus: {row.summary}", row.paper, True, True)


PROXIES: dict[str, Proxy] = {
    "diswot": Proxy(
        diswot, "minus semantic, minus relation distance", "DisWOT, CVPR 2023", True, True
    ),
    **{name: _closeness(name, row) for name, row in knowledge.KNOWLEDGE.items()},
    "params": Proxy(capacity.params, "trainable parameters", ""),
    "macs": Proxy(capacity.macs, "multiply-adds of one image", ""),
    "depth": Proxy(capacity.depth, "trainable layers", ""),
}


def get(name: str) -> Proxy:
    """The proxy of that name; an unknown name is a `UserError` with the nearest."""
    if name not in PROXIES:
        raise unknown("proxy", name, PROXIES)
    return PROXIES[name]


@dataclass(frozen=True)
class Scorer:
    """What stays the same for all candidates of a search: the teacher is observed once.

    Repeat r scores a candidate on batch r, with weights drawn from (seed, r), against teacher r.

    Attributes:
        teachers: The teacher's observation in each repeat.
        batches: The images and labels of each repeat.
        init: How candidates are initialised.
        seed: The user's seed.
    """

    teachers: tuple[Observation, ...]
    batches: tuple[Batch, ...]
    init: str = "gaussian"
    seed: int = 0

    def fresh(self, build: Callable[[], nn.Module], repeat: int = 0) -> nn.Module:
        """Build a candidate with the weights of a repeat."""
        return fresh(build, self.init, self.seed, repeat)

    def score(
        self, students: Iterable[nn.Module], proxies: Sequence[str]
    ) -> dict[str, list[float]]:
        """Score a candidate, given with the weights of each repeat; a list a proxy.

        Raises:
            ArithmeticError: A score is not finite.
        """
        rows = {name: get(name) for name in proxies}
        values: dict[str, list[float]] = {name: [] for name in rows}
        for teacher, batch, student in zip(self.teachers, self.batches, students, strict=True):
            for name, value in _scores(rows, teacher, student, batch).items():
                values[name].append(value)
        return values

    def score_build(
        self, build: Callable[[], nn.Module], proxies: Sequence[str]
    ) -> dict[str, list[float]]:
        """Build a candidate anew for each repeat and score it."""
        return self.score((self.fresh(build, r) for r in range(len(self.batches))), proxies)


def scorer(
    teacher: nn.Module,
    batches: Sequence[Batch],
    *,
    init: str = "gaussian",
    seed: int = 0,
    trained_teacher: bool = False,
) -> Scorer:
    """Observe the teacher on each batch, and keep what scoring needs.

    A fresh teacher draws its weights apart from the candidates', or else a candidate would agree
    with it by the weights they share.

    Args:
        teacher: Left as it is.
        batches: One a repeat.
        init: A key of `initialise.INITS`, for the teacher and for candidates.
        seed: The user's seed.
        trained_teacher: Whether to take the teacher's weights as they are.

    Raises:
        UserError: The teacher cannot be observed on these images.
    """
    seen = []
    for repeat, batch in enumerate(batches):
        model = teacher
        if not trained_teacher:
            model = fresh(partial(copy.deepcopy, teacher), init, seed, repeat, TEACHER)
        try:
            seen.append(observe(model, *batch))
        except RuntimeError as error:
            shape, reason = tuple(batch.images.shape[1:]), str(error).splitlines()[0]
            raise UserError(f"the teacher cannot take images of shape {shape}: {reason}") from error
    return Scorer(tuple(seen), tuple(batches), init, seed)


def score(
    teacher: nn.Module | Observation,
    student: nn.Module,
    batch: Batch,
    proxies: Sequence[str] = ("diswot",),
) -> dict[str, float]:
    """Score one student against one teacher, both with the weights they have.

    Args:
        teacher: A network, or what was observed of it on the same batch.
        student: A network.
        batch: Normalised images, B x 3 x H x W, and labels, B.
        proxies: Keys of `PROXIES`.

    Returns:
        A finite number by proxy; higher is better.

    Raises:
        UserError: A proxy is unknown, or does not fit the two networks.
        ArithmeticError: A score is not finite.
    """
    seen = teacher if isinstance(teacher, Observation) else observe(teacher, *batch)
    return _scores({name: get(name) for name in proxies}, seen, student, batch)


def _scores(
    rows: Mapping[str, Proxy], teacher: Observation, student: nn.Module, batch: Batch
) -> dict[str, float]:
    with torch.no_grad():
        candidate = Candidate(student, teacher, batch)
        values = {name: row.score(candidate) for name, row in rows.items()}
    for name, value in values.items():
        if not math.isfinite(value):
            raise ArithmeticError(f"{name} is {value}")
    return values
