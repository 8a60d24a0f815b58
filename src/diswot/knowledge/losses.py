"""Knowledge distances as losses, with the parameters that they learn beside the student's.

Letters: N rows, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from torch import Tensor, nn

from diswot.knowledge.adapters import LearnedAdapter
from diswot.knowledge.registry import Knowledge, get_distance
from diswot.observation.observe import Observation


class Loss(nn.Module):
    """A knowledge distance as a loss, for any two networks, with a learned adapter.

    Its parameters are those of the adapter and those that the distance itself learns; many
    distances have none.

    Args:
        row: The distance and its facts.
        teacher: Observation from which shapes are taken.
        student: Observation from which shapes are taken.
        temperature: T of a distance that softens outputs; by default the distance's own.
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
        weights: Weight of each distance, by a key of `registry.KNOWLEDGE`.
        teacher: Observation from which shapes are taken.
        student: Observation from which shapes are taken.
        temperature: T of distances that soften outputs; by default the distances' own.

    Attributes:
        needs_cam: Whether a distance needs `Observation.cam_weights`.
        needs_labels: Whether a distance depends on the targets.
        outputs_alone: Whether all distances look at nothing but outputs and targets.

    Raises:
        UserError: A name is unknown.
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
        self.needs_labels = any(row.needs_labels for row in rows.values())
        self.outputs_alone = all(row.outputs_alone for row in rows.values())
        made = {name: Loss(row, teacher, student, temperature) for name, row in rows.items()}
        self.rows = nn.ModuleDict(made)

    def forward(self, teacher: Observation, student: Observation) -> dict[str, Tensor]:
        """Return each distance times its weight."""
        return {
            name: self.weights[name] * loss(teacher, student) for name, loss in self.rows.items()
        }


def outputs(logits: Tensor, targets: Tensor) -> Observation:
    """Return an observation of outputs alone, for distances that look at nothing else.

    Args:
        logits: N x K.
        targets: Class indices, N.
    """
    nothing = logits.new_empty(0)
    return Observation((), nothing, nothing, logits, targets, nothing)
