"""What the outputs know: how probable the teacher finds every class."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import kl_div

from diswot.errors import UserError
from diswot.observe import Observation


def kd(teacher: Observation, student: Observation, temperature: float = 4.0) -> Tensor:
    """Knowledge distillation: softened outputs, compared. Hinton et al., 2015 (arXiv 1503.02531).

    T^2 KL(softmax(z_T / T) || softmax(z_S / T)), averaged over the batch, in nats.

    Args:
        teacher: Its logits, B x K, are used.
        student: Likewise.
        temperature: T, above zero.

    Raises:
        UserError: Teacher and student have different numbers of classes.
    """
    if teacher.logits.shape != student.logits.shape:
        raise UserError(
            f"kd needs one number of classes: teacher {teacher.logits.shape[1]}, "
            f"student {student.logits.shape[1]}"
        )
    target = (teacher.logits.float() / temperature).log_softmax(1)
    output = (student.logits.float() / temperature).log_softmax(1)
    return temperature**2 * kl_div(output, target, reduction="batchmean", log_target=True)
