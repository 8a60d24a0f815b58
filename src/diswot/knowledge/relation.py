"""The distance of the images' relations in the last map.

Letters: B images, C channels, H x W positions.
"""

from __future__ import annotations

from torch import Tensor

from diswot.knowledge.stages import at_least_float32, relation_matrix
from diswot.observation.observe import Observation


def relation(teacher: Observation, student: Observation) -> Tensor:
    """Relation distance of DisWOT: the difference of the images' similarities in the last map.

    R is the B x B Gram matrix of the flattened last maps, rows scaled to unit length; the result
    is ||R_T - R_S||_F^2 / B^2. Works for any widths and grids. The distance lies between 0 and 4 /
    B.

    DisWOT, CVPR 2023, eq. 6 and 7, after Tung and Mori, ICCV 2019.
    """
    of_teacher, of_student = (
        relation_matrix(at_least_float32(seen.last)) for seen in (teacher, student)
    )
    return (of_teacher - of_student).square().mean()
