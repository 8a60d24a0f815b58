"""Knowledge distances as losses, with what they learn beside the student."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from torch import Tensor, nn

from diswot.knowledge.adapters import Learned
from diswot.knowledge.registry import Knowledge, get_distance
from diswot.observation.observe import Observation


class Loss(nn.Module):
    """A knowledge distance as a loss: any two networks, brought together by a learned adapter.

    Its parameters are the adapter's and what else the distance learns; often there are none.

    Args:
        row: The distance and its facts.
        teacher: Observed once, for the shapes.
        student: Likewise.
        temperature: T, where the distance softens outputs; None leaves it its own.
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
        self.adapter = Learned(row.adapter, teacher, student) if row.adapter else None
        if self.adapter is not None:
            teacher, student = self.adapter(teacher, student)
        self.settings = row.learned(teacher) if row.learned else None

    def forward(self, teacher: Observation, student: Observation) -> Tensor:
        """The distance, a scalar."""
        if self.adapter is not None:
            teacher, student = self.adapter(teacher, student)
        settings = self.settings() if self.settings is not None else {}
        return self.distance(teacher, student, **settings)


class Losses(nn.Module):
    """Weighted knowledge distances, by name.

    Attributes:
        needs_cam: Whether any of them needs `Observation.cam_weights`.
        outputs_alone: Whether none looks at more than outputs and labels.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        teacher: Observation,
        student: Observation,
        temperature: float | None = None,
    ) -> None:
        super().__init__()
        rows = {name: get_distance(name) for name in weights}
        self.weights = dict(weights)
        self.needs_cam = any(row.needs_cam for row in rows.values())
        self.outputs_alone = all(row.outputs_alone for row in rows.values())
        made = {name: Loss(row, teacher, student, temperature) for name, row in rows.items()}
        self.rows = nn.ModuleDict(made)

    def forward(self, teacher: Observation, student: Observation) -> dict[str, Tensor]:
        """Each distance times its weight."""
        return {
            name: self.weights[name] * loss(teacher, student) for name, loss in self.rows.items()
        }


def outputs(logits: Tensor, labels: Tensor) -> Observation:
    """An observation of outputs alone, for the distances that look at nothing else.

    Args:
        logits: B x K.
        labels: B.
    """
    nothing = logits.new_empty(0)
    return Observation((), nothing, nothing, logits, labels, nothing)
