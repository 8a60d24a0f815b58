"""Distillation: a student learns from a teacher, or a network learns from the labels alone.

`distill` gives a `Distillation` (both networks, images and recipe) to a `TrainingLoop`. It runs a
`TrainingStep` for each batch. The step takes the losses from an `Objective`.

An epoch drops the images that fill no whole batch. Several processes, started by
`accelerate launch`, share each batch and give the curve of one process up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from diswot.data.dataset import Dataset
from diswot.data.own import as_dataset
from diswot.knowledge.registry import Weights
from diswot.observation.modes import require_network, sliced_shortcuts
from diswot.storage.run_files import FRESH
from diswot.storage.run_writer import write_training
from diswot.tasks.registry import MEASURES
from diswot.training.checkpoint import EpochRow, Settings
from diswot.training.distributed import Processes
from diswot.training.evaluation import frozen
from diswot.training.loop import OnEpoch, OnRead, OnStep, TrainingLoop
from diswot.training.progress import TrainingProgress
from diswot.training.recipe import Recipe
from diswot.training.recipe_files import default_recipe, load_recipe, with_losses
from diswot.training.starts import Start
from diswot.training.tensorboard import tensorboard_writer
from diswot.training.trainable import Distillation, check_trainable
from diswot.utils.agreement import finite, plain
from diswot.utils.notebook import Curve, data_frame, figure, html_table
from diswot.utils.progress import shown_progress
from diswot.utils.units import show_number

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure

_CURVES = {
    "train_accuracy": "training images, augmented",
    "test_accuracy": "test images",
    "test_miou": "test images, mean IoU",
    "test_map": "test images, mAP",
    "test_map50": "test images, mAP at an IoU of 0.5",
    "test_agreement": "test images, agreement with the teacher",
}


@dataclass(frozen=True, repr=False)
class Distilled:
    """The result of a training.

    Attributes:
        student: The trained network, in evaluation mode.
        history: One row an epoch: `epoch`, `loss` and its named parts, `train_accuracy` and
            `test_accuracy` in % (`test_agreement` without labels; `test_miou` in segmentation,
            where accuracies are those of pixels; `test_map` and `test_map50` in detection, which
            has no `train_accuracy`), `lr` of the last update, `seconds`, and `images_per_second`
            of the training images.
        seconds: Duration of all epochs, those before a resume included.
        by_class: Test result of each class after the last epoch, in %, NaN for a class that never
            occurs, and their means; empty in classification.
        record: The result as `trained.json` records it, as plain values.
    """

    student: nn.Module
    history: tuple[EpochRow, ...]
    seconds: float
    by_class: Mapping[str, float] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def _tested(self) -> str:
        return next(name for name in self.history[-1] if name.startswith("test_"))

    @property
    def test_result(self) -> float:
        """Result of the test images after the last epoch, in %: what the task measures."""
        return self.history[-1][self._tested]

    @property
    def test_accuracy(self) -> float:
        """Accuracy after the last epoch, in %; NaN without labels, and in segmentation.

        No epoch is chosen by the test images.
        """
        return self.history[-1].get("test_accuracy", math.nan)

    @property
    def test_agreement(self) -> float:
        """Share of the test images that student and teacher classify alike, in %.

        NaN if the test images have labels.
        """
        return self.history[-1].get("test_agreement", math.nan)

    @property
    def test_miou(self) -> float:
        """Mean over classes of the intersection over union after the last epoch, in %.

        NaN in classification.
        """
        return self.history[-1].get("test_miou", math.nan)

    @property
    def test_map(self) -> float:
        """Mean average precision after the last epoch, over IoUs of 0.5 to 0.95, in %.

        NaN for other tasks than detection.
        """
        return self.history[-1].get("test_map", math.nan)

    def to_dataframe(self) -> DataFrame:
        """Return a pandas data frame with a row for each epoch."""
        return data_frame(self.history, "epoch")

    def plot(self) -> Figure:
        """Return a Plotly figure of the accuracies by epoch, or of the agreement."""
        epochs = [row["epoch"] for row in self.history]
        names = [name for name in _CURVES if name in self.history[-1]]
        curves = [
            Curve(_CURVES[name], epochs, [row[name] for row in self.history]) for name in names
        ]
        return figure(curves, "epoch", "% of images")

    def __repr__(self) -> str:
        tested = f"{MEASURES[self._tested]} {self.test_result:.2f} %"
        epochs = show_number(len(self.history), "epoch")
        return f"Distilled({tested} after {epochs}, {self.seconds:.1f} s)"

    def _repr_html_(self) -> str:
        columns = tuple(self.history[-1])
        rows = [[f"{row.get(name, math.nan):.5g}" for name in columns] for row in self.history]
        return f"<p>{escape(repr(self))}</p>{html_table(columns, rows)}"


def distill(
    teacher: nn.Module | None,
    student: nn.Module,
    data: Dataset | object,
    recipe: Recipe | None = None,
    *,
    losses: str | Weights | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    hold: bool | None = None,
    tensorboard: bool = False,
    start: str | Start = FRESH,
    facts: Settings = MappingProxyType({}),
    teacher_classes: Sequence[int] | None = None,
    on_step: OnStep = lambda step, steps, row: None,
    on_read: OnRead = lambda done, total: None,
    on_epoch: OnEpoch = lambda row: None,
    progress: bool = False,
) -> Distilled:
    """Train a student with a teacher, or alone.

    The loss is the cross-entropy with the labels, or the losses of a detector, plus weighted
    knowledge distances to the teacher, which sees the same augmented images in evaluation mode. The
    same call gives the same curve on one machine, also when it was stopped and resumed.

    Args:
        teacher: Trained network, moved to Accelerate's device; None trains on the labels alone.
        student: Trained in place, on that device.
        data: Training and test images, as `as_dataset` takes them. Those without labels count in
            distances alone; if no test image has one, agreement stands in for the accuracy.
        recipe: Settings of the training; None for the recipe that `default_recipe` names.
        losses: Weights by name or function of a distance, or a text such as `kd:0.9,mine.py:gap:1`
            or `kd:published`, which brings the weight of the cross-entropy with it.
        out: Run folder (`load_run`) for checkpoint, history, weights, record; None to keep nothing.
        resume: Whether to continue from the checkpoint in `out`, if there is one.
        hold: Whether all images are held on the device; None to hold them if they fit.
        tensorboard: Whether the curves are also written to `out` for TensorBoard.
        start: Recorded origin of the student's weights, as `fresh`; see also `diswot.inherit`.
        facts: Plain facts that `trained.json` records, such as `student`: its parameters in a
            search, or its name, and `teacher`: its name. Default: the classes of both networks.
        teacher_classes: Class of each teacher output, -1 for none. Default: those of the data.
        on_step: Called after each update with its number, that of the last, and the latest row.
        on_read: Called while images are read, with the number read so far and the number of all.
        on_epoch: Called after each epoch with its row, when the checkpoint is written.
        progress: Whether progress is shown on standard error.

    Raises:
        UserError: Images, a network, losses or `out` do not fit, or `out` holds another training.
        FloatingPointError: A loss or a weight is not finite.
    """
    given = _distillation(teacher, student, data, recipe, losses, teacher_classes)
    origin, processes = start if isinstance(start, Start) else Start(start), Processes()
    with torch.random.fork_rng(devices=processes.gpus), frozen(teacher), sliced_shortcuts(student):
        loop = TrainingLoop(given, processes, Path(out) if out else None, origin)
        loop.restore(resume=resume)
        if not loop.finished:
            with _shown(loop, tensorboard=tensorboard, progress=progress) as (steps, epochs):
                loop.read(on_read, hold)
                loop.run([on_step, *steps], [on_epoch, *epochs])
        return _finished(loop, facts)


def _distillation(
    teacher: nn.Module | None,
    student: nn.Module,
    data: Dataset | object,
    recipe: Recipe | None,
    losses: str | Weights | None,
    classes: Sequence[int] | None,
) -> Distillation:
    """Check what `distill` was given, and fill in the default recipe."""
    require_network("student", student)
    if teacher is not None:
        require_network("teacher", teacher)
    recipe = recipe or load_recipe(default_recipe(student))
    if losses is not None:
        recipe = replace(recipe, **with_losses({"losses": losses}, recipe.epochs))
    given = Distillation(teacher, student, as_dataset(data), recipe, classes)
    check_trainable(given)
    return given


@contextmanager
def _shown(
    loop: TrainingLoop, *, tensorboard: bool, progress: bool
) -> Iterator[tuple[list[OnStep], list[OnEpoch]]]:
    """Yield what shows each update, and what shows or writes each epoch."""
    with ExitStack() as stack:
        main, curves = loop.processes.main, []
        if tensorboard and loop.out is not None and main:
            writer = tensorboard_writer(loop.out, len(loop.history))
            curves = [stack.enter_context(writer)]
        advance = stack.enter_context(shown_progress(quiet=not (progress and main)))
        bar = TrainingProgress(advance, loop.recipe)
        yield [bar.on_step], [bar.on_epoch, *curves]


def _finished(loop: TrainingLoop, facts: Settings) -> Distilled:
    """Finish a training and return its result; write the weights and the record to its folder."""
    loop.finish()
    data, recipe, last = loop.data, loop.recipe, loop.history[-1]
    taught = None if loop.teacher is None else type(loop.teacher).__name__
    record = {
        "student": type(loop.student).__name__,
        "teacher": taught,
        **facts,
        "start": loop.start.facts(),
        "losses": recipe.weights,
        "recipe": recipe.as_dict(),
        **{name: last[name] for name in last if name.startswith("test_")},
        **{name: last[name] for name in ("train_accuracy",) if name in last},
        **({"by_class": finite(loop.by_class)} if loop.by_class else {}),
        **loop.sizes,
        "epochs": recipe.epochs,
        "seconds": loop.seconds,
        "data": data.name,
        "classes": len(data.classes),
        **data.image_facts,
        "out": None if loop.out is None else str(loop.out),
    }
    if loop.out is not None and loop.processes.main:
        write_training(loop.out, record, data.classes)
    history = tuple(loop.history)
    return Distilled(loop.student, history, loop.seconds, loop.by_class, plain(record))
