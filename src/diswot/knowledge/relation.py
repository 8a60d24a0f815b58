"""What the batch knows: which samples a network finds alike."""

from __future__ import annotations

from torch import Tensor

from diswot.knowledge.stages import sample_gram, single
from diswot.observation.functional import unit_rows
from diswot.observation.observe import Observation


def relation(teacher: Observation, student: Observation) -> Tensor:
    """Relation distance of DisWOT: the sample correlations of the last feature maps, compared.

    The B x B Gram matrix of the flattened last maps, rows scaled to unit length; squared
    Frobenius norm of the difference of teacher and student, over B^2. DisWOT, CVPR 2023, eq. 6
    and 7 (after similarity-preserving distillation, Tung and Mori, ICCV 2019). Works for any
    widths and grids.

    Returns:
        A scalar between 0 and 4 / B.
    """
    relations = [unit_rows(sample_gram(single(seen.last))) for seen in (teacher, student)]
    return (relations[0] - relations[1]).square().mean()
