"""The distance of the classes' correlations in the class gradients.

Letters: K classes, D features that enter the classifier.
"""

from __future__ import annotations

from torch import Tensor

from diswot.errors import UserError
from diswot.knowledge.rows import check_rows
from diswot.observation.functional import class_similarity
from diswot.observation.observe import Observation


def semantic_class(teacher: Observation, student: Observation) -> Tensor:
    """Class form of the semantic distance: the difference of the classes' similarities.

    The K x K cosines between the rows of the class gradient; squared Frobenius norm of the
    difference of teacher and student, over K^2. Works for any widths.

    It is from no paper: DisWOT has the channel form alone, `semantic`.

    Args:
        teacher: Its `class_gradient`, K x D, is used.
        student: Its `class_gradient`, K x D, is used.

    Returns:
        A scalar between 0 and 4.

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
