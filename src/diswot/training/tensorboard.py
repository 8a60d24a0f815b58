"""The curves of a training in TensorBoard."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from diswot.errors import UserError

FOLDER = "tensorboard"


def board(folder: Path, done: int) -> Callable[[Mapping[str, float]], None]:
    """What writes each epoch's row, one curve a value, for `tensorboard --logdir`.

    Args:
        folder: Of the training; the events go into a folder in it.
        done: Epochs that are there already; later ones, of a training that was stopped, are
            hidden.

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
