"""What the class gradients know: which channels speak for which class."""

from __future__ import annotations

from torch import Tensor

from diswot.errors import UserError
from diswot.observation.functional import rank_one_distance
from diswot.observation.observe import Observation

EPSILON = 1e-12


def semantic(teacher: Observation, student: Observation) -> Tensor:
    """Semantic distance of DisWOT: the channel correlations of the class gradients, compared.

    For each class, the C x C correlation matrix of its gradient row, rows scaled to unit length;
    squared difference of teacher and student, summed, over K * C. DisWOT, CVPR 2023, eq. 3 to 5.
    The paper draws it from Grad-CAM maps; the published code, and this function, from the
    gradient of the classifier's weight.

    As in the published code, a row shorter than `EPSILON` is not brought to unit length. That is
    no detail: with Gaussian weights the softmax saturates, most classes have such rows, and how
    many do is a good part of what this score knows. (Without it, Kendall tau on S0 falls from 0.6
    to 0.4.)

    Returns:
        A scalar between 0 and 4.

    Raises:
        UserError: Teacher and student have different numbers of classes or channels.
    """
    shapes = tuple(teacher.class_gradient.shape), tuple(student.class_gradient.shape)
    if shapes[0] != shapes[1]:
        raise UserError(
            "semantic needs classifiers of one shape (classes x channels): "
            f"teacher {shapes[0]}, student {shapes[1]}; the default score takes any, "
            "and as a loss semantic_class"
        )
    return rank_one_distance(teacher.class_gradient, student.class_gradient, EPSILON)
