"""Training curves for TensorBoard."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from diswot.errors import UserError

FOLDER = "tensorboard"


def tensorboard_writer(folder: Path, done: int) -> Callable[[Mapping[str, float]], None]:
    """Return a function that writes the row of an epoch, one curve a value.

    Args:
        folder: Folder of the training. The events are written into its folder `tensorboard`.
        done: Epochs that are done. TensorBoard hides the events of later epochs that an
            interrupted training has left.

    Raises:
        UserError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError(
            "TensorBoard is not installed: pip install 'diswot[tensorboard]'"
        ) from error
    writer = SummaryWriter(str(folder / FOLDER), purge_step=done + 1)

    def write(row: Mapping[str, float]) -> None:
        for name, value in row.items():
            if name != "epoch":
                writer.add_scalar(name, value, int(row["epoch"]))
        writer.flush()

    return write
