"""The short trainings after a search, as a table compares them: at equal numbers of epochs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from diswot.training.evaluation import overlap
from diswot.utils.units import show_number
from diswot.utils.untrusted import Facts, listed, mapping, number

WINNER, OVERLAPS, AHEAD, BEHIND = "winner", "interval overlaps", "ahead", "behind"


@dataclass(frozen=True)
class VerifiedRow:
    """A short training.

    Attributes:
        student: The student, as in `found.json`.
        changes: Tuned settings of the recipe.
        epochs: Epochs of the training.
        accuracy: Accuracy on the held-out images after the last of them, in %.
        by_epoch: That accuracy after each epoch that students are compared at.
        interval: 95 % interval of the last accuracy; None if none is recorded.
        outcome: `winner`, `interval overlaps` with that of the winner, `behind`, or `stopped after
            3 epochs`; of the baseline also `ahead`.
        inherited: Share of the parameters that the student began with from its teacher, 0 to 1; 0
            for random weights.
    """

    student: Facts
    changes: Facts
    epochs: int
    accuracy: float
    by_epoch: Mapping[int, float]
    interval: tuple[float, float] | None
    outcome: str
    inherited: float

    @property
    def params(self) -> Facts:
        """Parameters of the student."""
        return mapping(self.student.get("params"))


@dataclass(frozen=True)
class Verification:
    """The short trainings of a search.

    Attributes:
        rows: The trainings, the winner first and those of fewest epochs last.
        epochs: Numbers of epochs after which a training ended, rising.
        held_out: Number of images that the accuracy was measured on.
        failed: Number of trainings that failed.
        measure: What the accuracies are: `accuracy`, `mIoU` in segmentation, `mAP` in detection.
        baseline: The training of the network of `--like`; None without one, or if it failed.
    """

    rows: tuple[VerifiedRow, ...]
    epochs: tuple[int, ...]
    held_out: int
    failed: int
    measure: str
    baseline: VerifiedRow | None = None

    def starts(self) -> str:
        """Say which weights the students began with."""
        shares = [row.inherited for row in self.rows if row.inherited]
        if not shares:
            return "the trainings began with random weights"
        share = " to ".join(dict.fromkeys((f"{min(shares):.0%}", f"{max(shares):.0%}")))
        text = f"trainings began with weights of the teacher, {share} of the parameters"
        if len(shares) == len(self.rows):
            return f"the {text}"
        return f"{len(shares)} of {len(self.rows)} {text}; the others with random weights"

    def standing(self) -> str:
        """Say after how many epochs the winner won, how surely, and how the others stood."""
        first, outcomes = self.rows[0], [row.outcome for row in self.rows]
        text = f"after {show_number(first.epochs, 'epoch')}"
        if first.interval is not None:
            low, high = first.interval
            text += f" (95 % interval {low:.2f} to {high:.2f} %)"
        overlap, behind = outcomes.count(OVERLAPS), outcomes.count(BEHIND)
        stopped = len(outcomes) - 1 - overlap - behind
        counts = {"with an overlapping interval": overlap, "behind": behind}
        counts |= {"stopped early": stopped, "failed": self.failed}
        others = ", ".join(f"{count} {how}" for how, count in counts.items() if count)
        return text + (f"; of the others, {others}" if others else "")

    def comparison(self, name: str) -> str:
        """Say how a baseline of this name stands beside the winner."""
        row = self.baseline
        if row is None:
            return f"{name} could not be trained alike"
        range_ = "" if row.interval is None else " ({:.2f} to {:.2f} %)".format(*row.interval)
        how = {OVERLAPS: "the difference is within the intervals"}.get(row.outcome, row.outcome)
        return f"{name}, trained alike: {row.accuracy:.2f} %{range_}, {how}"


def verification(found: Facts) -> Verification | None:
    """Return the short trainings that `found.json` records; None without any."""
    facts = mapping(found.get("verified"))
    known = [row for row in map(mapping, listed(facts.get("trained"))) if _whole(row)]
    if not known:
        return None
    ends = tuple(sorted({int(row["epochs"]) for row in known}))
    tied, best = listed(facts.get("tied")), known[0]
    rows = tuple(_row(row, ends, _outcome(row, best, row.get("trial") in tied)) for row in known)
    held = int(number(facts.get("held_out")) or 0)
    measure = str(facts.get("measure") or "accuracy")
    failed = int(number(facts.get("failed")) or 0)
    return Verification(rows, ends, held, failed, measure, _baseline(facts, ends, rows[0]))


def _whole(row: Facts) -> bool:
    return _measured(row) and isinstance(row.get("student"), Mapping)


def _measured(row: Facts) -> bool:
    return number(row.get("accuracy")) is not None and number(row.get("epochs")) is not None


def _baseline(facts: Facts, ends: tuple[int, ...], best: VerifiedRow) -> VerifiedRow | None:
    """Return the training of the baseline, and how it stands beside the winner."""
    facts = mapping(facts.get("baseline"))
    if not _measured(facts):
        return None
    row = _row(facts, ends, BEHIND)
    if overlap(row.interval, best.interval):
        return replace(row, outcome=OVERLAPS)
    return replace(row, outcome=AHEAD) if row.accuracy > best.accuracy else row


def _outcome(row: Facts, best: Facts, overlaps: bool) -> str:
    if row is best:
        return WINNER
    if row["epochs"] < best["epochs"]:
        return f"stopped after {show_number(int(row['epochs']), 'epoch')}"
    return OVERLAPS if overlaps else BEHIND


def _row(row: Facts, ends: tuple[int, ...], outcome: str) -> VerifiedRow:
    epochs, accuracy = int(row["epochs"]), float(row["accuracy"])
    after = dict(enumerate(_numbers(row.get("accuracies")), 1)) | {epochs: accuracy}
    interval = _numbers(row.get("interval"))
    return VerifiedRow(
        student=mapping(row.get("student")),
        changes=mapping(row.get("changes")),
        epochs=epochs,
        accuracy=accuracy,
        by_epoch={end: after[end] for end in ends if end in after and end <= epochs},
        interval=(interval[0], interval[1]) if len(interval) == 2 else None,
        outcome=outcome,
        inherited=number(mapping(row.get("start")).get("share")) or 0.0,
    )


def _numbers(value: Any) -> list[float]:
    """Return a list of numbers; an empty one for any other value."""
    values = [number(each) for each in listed(value)]
    known = [each for each in values if each is not None]
    return known if len(known) == len(values) else []
