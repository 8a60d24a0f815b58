"""The distances of the channels' and of the classes' correlations in the class gradients.

Letters: K classes, D features that enter the classifier.
"""

from __future__ import annotations

from torch import Tensor

from diswot.errors import UserError
from diswot.knowledge.rows import check_rows
from diswot.observation.functional import class_similarity, rank_one_distance
from diswot.observation.observe import Observation

EPSILON = 1e-12


def semantic(teacher: Observation, student: Observation) -> Tensor:
    """Semantic distance of DisWOT: the difference of the class gradients' channel correlations.

    For each class, the D x D matrix g g^T of its row g of the class gradient, rows scaled to unit
    length; squared difference of teacher and student, summed, over K D. The distance lies between
    0 and 4.

    DisWOT, CVPR 2023, eq. 3 to 5. The text of the paper uses Grad-CAM maps (`gradcam`); the
    published code, and this function, use the gradient of the classifier's weight. As in the
    published code, a row of g g^T shorter than `EPSILON` is divided by `EPSILON` instead. This
    matters: with Gaussian weights the softmax saturates, and most classes have such rows. Without
    it Kendall tau on S0 falls from 0.6 to 0.4.

    Raises:
        UserError: The class gradients have different shapes.
    """
    check_rows("semantic", teacher, student, "class_gradient", same=False)
    shapes = tuple(teacher.class_gradient.shape), tuple(student.class_gradient.shape)
    if shapes[0] != shapes[1]:
        raise UserError(
            "semantic needs classifiers of one shape (classes x channels): "
            f"teacher {shapes[0]}, student {shapes[1]}; the default score takes any, "
            "and as a loss semantic_class"
        )
    return rank_one_distance(teacher.class_gradient, student.class_gradient, EPSILON)


def semantic_class(teacher: Observation, student: Observation) -> Tensor:
    """Class form of the semantic distance: the difference of the classes' similarities.

    The K x K cosines between the rows of the class gradient; squared Frobenius norm of the
    difference of teacher and student, over K^2. Works for any widths. The distance lies between 0
    and 4.

    It is from no paper: DisWOT has the channel form alone, `semantic`.

    Raises:
        UserError: Teacher and student have different numbers of classes.
    """
    check_rows("semantic_class", teacher, student, "class_gradient", same=False)
    classes = len(teacher.class_gradient), len(student.class_gradient)
    if classes[0] != classes[1]:
        raise UserError(
            "semantic_class needs one number of classes: "
            f"teacher {classes[0]}, student {classes[1]}"
        )
    difference = class_similarity(teacher.class_gradient) - class_similarity(student.class_gradient)
    return difference.square().mean()
