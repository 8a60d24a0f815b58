"""The progress of a training: epochs, the last loss and test result, images a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from diswot.utils.progress import Advance

if TYPE_CHECKING:
    from diswot.training.recipe import Recipe


def tested(result: Mapping[str, float]) -> str:
    """Return the test accuracy in %, the mean IoU, or the agreement with the teacher."""
    from diswot.tasks.registry import find_result

    found = find_result(result)
    if found is None:
        return "nan"
    return f"{found.percent:.2f}" + ("" if found.kind == "accuracy" else f" ({found.kind})")


def epoch_note(epoch: int, epochs: int, row: Mapping[str, float], images: str = "test") -> str:
    """Return the epoch, from 1, with the loss and the accuracy of the last one that has ended."""
    notes = [f"epoch {epoch} of {epochs}"]
    notes += [f"loss {row['loss']:.4g}"] if "loss" in row else []
    return ", ".join([*notes, f"{images} {tested(row)} %"] if row else notes)


class TrainingProgress:
    """The progress of a training: its epoch, the last loss and test accuracy, images a second.

    At the first step, when nothing stands in the way of the training, `on_first` is called.
    """

    def __init__(
        self, advance: Advance, how: Recipe, on_first: Callable[[], object] = lambda: None
    ) -> None:
        self._advance, self._how, self._on_first = advance, how, on_first
        self._start, self._first, self._at = 0.0, 0, (0, 0)

    def on_step(self, step: int, steps: int, row: Mapping[str, float]) -> None:
        """Show an update; arguments as `diswot.distill` calls `on_step`."""
        now, how = time.perf_counter(), self._how
        if not self._first:
            self._on_first()
        if not self._first or (step - 1) % (steps // how.epochs) == 0:
            self._start, self._first = now, step
        taken = step - self._first
        rate = f", {taken * how.batch_size / (now - self._start):.0f} images/s" if taken else ""
        self._at = step, steps
        epoch = (step - 1) // (steps // how.epochs) + 1
        self._advance("training", step, steps, epoch_note(epoch, how.epochs, row) + rate)

    def on_epoch(self, row: Mapping[str, float]) -> None:
        """Show an epoch that has ended, in a line of its own where there is no terminal."""
        rate = f", {row['images_per_second']:.0f} images/s"
        note = epoch_note(int(row["epoch"]), self._how.epochs, row)
        self._advance("training", *self._at, note + rate, line=True)
