"""Training curves for TensorBoard."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from diswot.utils.optional_imports import imported

FOLDER = "tensorboard"


@contextmanager
def tensorboard_writer(folder: Path, done: int) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """Yield a function that writes the row of an epoch, one curve a value.

    The events are in the folder `tensorboard` of the training. TensorBoard hides those after the
    epochs that are done, which an interrupted training has left.

    Raises:
        UserError: TensorBoard is not installed.
    """
    imported("tensorboard", "--tensorboard", "tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder / FOLDER), purge_step=done + 1) as writer:

        def write(row: Mapping[str, float]) -> None:
            for name, value in row.items():
                if name != "epoch":
                    writer.add_scalar(name, value, int(row["epoch"]))
            writer.flush()

        yield write
