"""The students of a verification, trained briefly, and the most accurate of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from diswot.nas.result import Student
from diswot.training.starts import Start
from diswot.utils.notebook import Curve, data_frame, figure, frame_html
from diswot.utils.units import show_number

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure


@dataclass(frozen=True)
class ShortTraining:
    """A student that was distilled briefly.

    Attributes:
        student: The student of the search, with its score; None for the baseline.
        accuracy: Accuracy on the held-out images after the last epoch of this training, in %.
        interval: 95 % interval of that accuracy by Wilson's score, in %; None for a measure that is
            no share of the images, such as the mean IoU or the mean average precision.
        accuracies: Accuracy after each epoch, in %.
        epochs: Epochs of this training; fewer than the recipe's if it was stopped.
        changes: Tuned settings of the recipe.
        trial: Number of the trial.
        start: Where the weights are from that the training began with, as `Start.facts` says it.
    """

    student: Student | None
    accuracy: float
    interval: tuple[float, float] | None
    accuracies: tuple[float, ...]
    epochs: int
    changes: Mapping[str, Any]
    trial: int
    start: Mapping[str, Any] = field(default_factory=lambda: Start().facts())


@dataclass(frozen=True, repr=False)
class Verified:
    """The result of the short trainings.

    Attributes:
        best: The most accurate student of those trained for the most epochs. As the maximum of
            several, its accuracy is optimistic.
        trained: All trained students: more epochs first, then the more accurate.
        tied: Trials of as many epochs as the best whose interval overlaps with that of the best;
            none without intervals.
        failed: Number of trainings of students that failed.
        held_out: Number of images that the accuracy was measured on.
        measure: What the accuracies are: `accuracy`, `mIoU` in segmentation, `mAP` in detection.
        baseline: The training of the baseline; None without one, or if it failed.
    """

    best: ShortTraining
    trained: tuple[ShortTraining, ...]
    tied: tuple[int, ...]
    failed: int
    held_out: int
    measure: str
    baseline: ShortTraining | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)

    def to_dataframe(self) -> DataFrame:
        """Return a pandas data frame: a row for each training of a student, by its trial."""
        return data_frame(
            (
                {"trial": each.trial, "accuracy": each.accuracy, "epochs": each.epochs}
                | {"score": student.score, **each.changes}
                | {f"params_{name}": value for name, value in student.params.items()}
                for each, student in self._students()
            ),
            "trial",
        )

    def plot(self) -> Figure:
        """Return a Plotly figure of the trained students: accuracy against score."""
        rows = [(s.score, each.accuracy, f"trial {each.trial}") for each, s in self._students()]
        scores, accuracies, texts = zip(*rows, strict=True)
        curve = Curve("students", scores, accuracies, texts, "markers")
        return figure([curve], "score", f"{self.measure} on held-out images, %")

    def _students(self) -> list[tuple[ShortTraining, Student]]:
        return [(each, each.student) for each in self.trained if each.student is not None]

    def __repr__(self) -> str:
        best = f"{self.measure} {self.best.accuracy:.2f} % of {self.held_out} held-out images"
        return f"Verified({show_number(len(self.trained), 'student')}, best {best})"

    def _repr_html_(self) -> str:
        return frame_html(repr(self), self.to_dataframe)
