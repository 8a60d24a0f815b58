"""Knowledge distances as losses, with the parameters that they learn beside the student's.

Letters: N rows, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from diswot.errors import UserError
from diswot.knowledge.adapters import LearnedAdapter
from diswot.knowledge.registry import Knowledge, Weights, get_distances
from diswot.knowledge.rows import check_rows
from diswot.observation.modes import without_autocast
from diswot.observation.observe import Observation

MIN_SHARED = 2  # classes, below which outputs say nothing


class Loss(nn.Module):
    """A knowledge distance as a loss, for any two networks, with a learned adapter.

    Its parameters are those of the adapter and those that the distance itself learns; many
    distances have none. Shapes are taken from the two observations.

    A temperature replaces that of a distance that softens outputs.
    """

    def __init__(
        self,
        row: Knowledge,
        teacher: Observation,
        student: Observation,
        temperature: float | None = None,
    ) -> None:
        super().__init__()
        self.distance = row.distance
        if temperature is not None and "temperature" in row.defaults:
            self.distance = partial(row.distance, temperature=temperature)
        self.adapter = LearnedAdapter(row.adapter, teacher, student) if row.adapter else None
        if self.adapter is not None:
            teacher, student = self.adapter(teacher, student)
        self.settings = row.learned(teacher) if row.learned else None

    def forward(self, teacher: Observation, student: Observation) -> Tensor:
        """Return the distance, a scalar."""
        if self.adapter is not None:
            teacher, student = self.adapter(teacher, student)
        settings = self.settings() if self.settings is not None else {}
        return self.distance(teacher, student, **settings)


class Losses(nn.Module):
    """Weighted knowledge distances, by name.

    Args:
        weights: Weight of each distance, by its name or function as `get_distance` takes it.
        teacher: Observation from which shapes are taken.
        student: Observation from which shapes are taken.
        temperature: T of distances that soften outputs; by default the distances' own.
        classes: The student's class of each of the teacher's outputs, -1 for none. Distances of
            outputs are computed over the shared classes alone; those that look at labels, over the
            rows whose label is shared. Default: both networks have the same classes.

    Attributes:
        needs_cam: Whether a distance needs `Observation.cam_weights`.
        needs_labels: Whether a distance depends on the targets.
        outputs_alone: Whether all distances look at nothing but outputs and targets.

    Raises:
        UserError: As in `get_distances`, or a distance needs classes that the networks do not
            share.
    """

    def __init__(
        self,
        weights: Weights,
        teacher: Observation,
        student: Observation,
        temperature: float | None = None,
        classes: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        rows = get_distances(weights)
        self.weights = dict(zip(rows, weights.values(), strict=True))
        self.facts = rows
        self.shared = None if classes is None else SharedClasses(tuple(classes))
        if self.shared is not None:
            for name, row in rows.items():
                self.shared.check(name, row)
        self.needs_cam = any(row.needs_cam for row in rows.values())
        self.needs_labels = any(row.needs_labels for row in rows.values())
        self.outputs_alone = all(row.outputs_alone for row in rows.values())
        self.rows = nn.ModuleList(
            [Loss(row, teacher, student, temperature) for row in rows.values()]
        )

    def forward(self, teacher: Observation, student: Observation) -> dict[str, Tensor]:
        """Return each distance times its weight, in float32 also under autocast."""
        parts = zip(self.weights.items(), self.facts.values(), self.rows, strict=True)
        with without_autocast(student.last.device):
            return {
                name: weight * self._value(row, loss, teacher, student)
                for (name, weight), row, loss in parts
            }

    def _value(
        self, row: Knowledge, loss: nn.Module, teacher: Observation, student: Observation
    ) -> Tensor:
        if self.shared is not None and row.outputs_alone:
            teacher, student = self.shared.select(teacher, student, labelled=row.needs_labels)
            if not len(student.logits):
                return student.logits.sum()
        value: Tensor = loss(teacher, student)
        return value


@dataclass(frozen=True)
class SharedClasses:
    """The classes that a teacher and its student share.

    Attributes:
        classes: The student's class of each of the teacher's outputs, -1 for none.
    """

    classes: tuple[int, ...]

    @property
    def outputs(self) -> list[int]:
        """The teacher's outputs whose class the student has."""
        return [output for output, place in enumerate(self.classes) if place >= 0]

    @property
    def places(self) -> list[int]:
        """The student's class of each of these outputs."""
        return [place for place in self.classes if place >= 0]

    def check(self, name: str, row: Knowledge) -> None:
        """Refuse a distance that cannot do with the shared classes.

        Raises:
            UserError: There are too few, or the distance looks at classes and maps.
        """
        if row.outputs_alone and len(self.places) < MIN_SHARED:
            raise UserError(
                f"{name} needs {MIN_SHARED} classes that teacher and data share, and they share "
                f"{len(self.places)}; losses of feature maps, such as at or sp, need none"
            )
        if row.needs_labels and not row.outputs_alone:
            raise UserError(
                f"{name} needs a teacher with all classes of the data; losses such as kd, at or sp "
                "do with a part"
            )

    def select(
        self, teacher: Observation, student: Observation, *, labelled: bool
    ) -> tuple[Observation, Observation]:
        """Return outputs of shared classes alone; if `labelled`, only rows with shared labels."""
        check_rows("a distance of outputs", teacher, student, "logits")
        shared = self if student.anchors is None else self.with_background
        targets = translated(student.targets, shared.places)
        kept = targets >= 0 if labelled else torch.ones_like(targets, dtype=torch.bool)
        logits_t, logits_s = teacher.logits[:, shared.outputs], student.logits[:, shared.places]
        return outputs(logits_t[kept], targets[kept]), outputs(logits_s[kept], targets[kept])

    @property
    def with_background(self) -> SharedClasses:
        """The classes with that of a detector's background, which comes first in both networks."""
        return SharedClasses((0, *(place + 1 if place >= 0 else -1 for place in self.classes)))

    def answers(self, logits: Tensor) -> Tensor:
        """Return the student's class with the teacher's highest logit, N; -1 if none is shared."""
        if not self.places:
            return logits.new_full((len(logits),), -1, dtype=torch.int64)
        places = torch.tensor(self.places, device=logits.device)
        return places[logits[:, self.outputs].argmax(1)]


def translated(labels: Tensor, classes: Sequence[int]) -> Tensor:
    """Return the place of each label, N, among some classes, or -1.

    The classes are at least one, and each is there once; -1 is no label and no class.
    """
    same = labels[:, None] == torch.tensor(list(classes), device=labels.device)
    return torch.where((labels >= 0) & same.any(1), same.int().argmax(1), -1)


def outputs(logits: Tensor, targets: Tensor) -> Observation:
    """Return an observation of logits, N x K, and targets alone, for distances of nothing else."""
    nothing = logits.new_empty(0)
    return Observation((), nothing, nothing, logits, targets, nothing)
