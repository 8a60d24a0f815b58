"""What a run folder holds, as plain values: a search, trainings, rank studies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import optuna

from diswot.costs.budget import show_costs
from diswot.storage.run_files import DISTILLED
from diswot.tasks.registry import Measured, find_result
from diswot.utils.notebook import Curve, data_frame, figure
from diswot.utils.units import show_number
from diswot.utils.untrusted import Facts, listed, mapping, number, numbers

if TYPE_CHECKING:
    from pandas import DataFrame
    from plotly.graph_objects import Figure
    from torch import nn


@dataclass(frozen=True)
class TrialRecord:
    """A trial of a search.

    Attributes:
        trial: Number of the trial.
        params: Parameters of the architecture.
        outcome: `scored`, `reused`, `rejected`, `failed` or `running`.
        score: Higher is better; None without one.
        standard_error: Standard error of the score over the repeats.
        model_params: Parameters.
        macs: Multiply-adds of one image.
        note: Why the trial was rejected or failed.
        extra: Other costs of the student: `latency` in seconds, `memory` in bytes.
    """

    trial: int
    params: Facts
    outcome: str
    score: float | None = None
    standard_error: float | None = None
    model_params: float | None = None
    macs: float | None = None
    note: str = ""
    extra: Mapping[str, float] = field(default_factory=dict)

    def cost(self, name: str) -> float | None:
        """Return a cost by its name in budgets: params, macs, latency or memory."""
        own = {"params": self.model_params, "macs": self.macs}
        return own[name] if name in own else self.extra.get(name)


def top(found: Facts) -> tuple[TrialRecord, ...]:
    """Return the best trials that `found.json` lists, for a study that cannot be read."""
    known = ("score", "standard_error", "model_params", "macs")
    return tuple(
        TrialRecord(
            trial=int(number(row.get("trial")) or 0),
            params=mapping(row.get("params")),
            outcome="scored",
            **{name: number(row.get(name)) for name in known},  # type: ignore[arg-type]
            extra={name: v for name, v in numbers(row).items() if name in ("latency", "memory")},
        )
        for row in listed(found.get("top"))
        if isinstance(row, dict)
    )


@dataclass(frozen=True, repr=False)
class SearchRecord:
    """A search, finished or not.

    Attributes:
        config: Configuration of the search.
        found: Result, as in `found.json`; empty while the search is unfinished.
        trials: Every trial; empty where the study cannot be read.
        study: The Optuna study; None where it cannot be read.
        seconds: Duration over all runs; None if not known.
    """

    config: Facts
    found: Facts
    trials: tuple[TrialRecord, ...]
    study: optuna.Study | None
    seconds: float | None

    def like(self) -> str:
        """Return the network whose costs were the limits, with these costs; empty without one."""
        like = mapping(self.config.get("like"))
        name = str(like.get("network", "")).rpartition("/")[2]
        return f"{name} ({show_costs(numbers(like))})" if name else ""

    def costs(self) -> list[str]:
        """Return what the score is weighed against: params, limited costs and objectives."""
        named = map(str, listed(self.config.get("objectives")))
        limited = [name.removeprefix("max_") for name in numbers(self.config.get("budget"))]
        return list(dict.fromkeys(["params", *limited, *(n for n in named if n != "score")]))

    def scored(self) -> list[TrialRecord]:
        """Return the trials with a score of their own, the best first."""
        there = [t for t in self.trials if t.outcome == "scored" and t.score is not None]
        return sorted(there, key=lambda t: (-(t.score or 0.0), t.trial))

    @property
    def best(self) -> TrialRecord | None:
        """The student that was found, or the best one so far; None without any."""
        found, ranked = mapping(self.found.get("best")), self.scored()
        own = [trial for trial in ranked if trial.params == found.get("params")]
        recorded = top({"top": [found]}) if ranked and mapping(found.get("params")) else ()
        return next(iter([*own, *recorded, *ranked]), None)

    def to_dataframe(self) -> DataFrame:
        """Return a pandas data frame: a row for each trial, by its number.

        Each parameter of the space has a column, such as `params_depth`.
        """
        rows = []
        for each in self.trials:
            facts = asdict(each)
            params, extra = facts.pop("params"), facts.pop("extra")
            named = {f"params_{name}": value for name, value in params.items()}
            rows.append({**facts, **extra, **named})
        return data_frame(rows, "trial")

    def plot(self) -> Figure:
        """Return a Plotly figure of the scored trials: score against parameters."""
        known = [trial for trial in self.scored() if trial.model_params is not None]
        sizes = [trial.model_params or 0.0 for trial in known]
        texts = [f"trial {trial.trial}" for trial in known]
        scores = [trial.score or 0.0 for trial in known]
        return figure([Curve("students", sizes, scores, texts, "markers")], "params", "score")

    def __repr__(self) -> str:
        state = "finished" if self.found else "unfinished"
        best = "".join(f", best score {trial.score:.4g}" for trial in self.scored()[:1])
        return f"SearchRecord({state}, {show_number(len(self.trials), 'trial')}{best})"


@dataclass(frozen=True, repr=False)
class TrainingRecord:
    """A training, finished or not.

    Attributes:
        name: Path of the training's folder inside the run folder.
        history: A row for each epoch.
        result: Result, as in `trained.json`; empty while the training is unfinished.
        weights: File of the trained weights; None where there is none.
    """

    name: str
    history: tuple[Mapping[str, float], ...]
    result: Facts
    weights: Path | None = None

    @property
    def tested(self) -> Measured | None:
        """Result of the test images; None without it, as while a training is unfinished."""
        return find_result(self.result)

    @property
    def accuracy(self) -> float | None:
        """Accuracy on the test images in %; None without it, as in segmentation."""
        return number(self.result.get("test_accuracy"))

    def seconds(self) -> float:
        """Return the duration of the epochs so far, over all runs."""
        return sum(row.get("seconds", 0.0) for row in self.history)

    def __repr__(self) -> str:
        state = "finished" if self.result else "unfinished"
        state = f"{self.tested.kind} {self.tested.percent:.2f} %" if self.tested else state
        return f"TrainingRecord({self.name!r}, {show_number(len(self.history), 'epoch')}, {state})"


@dataclass(frozen=True, repr=False)
class RankStudyRecord:
    """A rank study.

    Attributes:
        name: Path of the study's folder inside the run folder.
        result: Result, as in `rank.json`.
        accuracies: Column of each target, in the order of `names`; None is missing.
        scores: Column of each score, in the order of `names`; None is missing.
        names: Names of the architectures.
    """

    name: str
    result: Facts
    accuracies: Mapping[str, list[float | None]]
    scores: Mapping[str, list[float | None]]
    names: tuple[str, ...]

    def to_dataframe(self) -> DataFrame:
        """Return a pandas data frame: a row for each architecture, with accuracies and scores."""
        columns = {"architecture": self.names, **self.accuracies, **self.scores}
        return data_frame(
            (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)),
            "architecture",
        )

    def __repr__(self) -> str:
        scores = show_number(len(self.scores), "score")
        architectures = show_number(len(self.names), "architecture")
        return f"RankStudyRecord({self.name!r}, {scores} of {architectures})"


@dataclass(frozen=True, repr=False)
class Run:
    """Everything that a run folder holds.

    Attributes:
        folder: Path of the run folder.
        facts: The command with its versions and hardware, as in `run.json` or `trained.json`.
        search: The search; None without one.
        trainings: The trainings, those in folders below included.
        studies: The rank studies, those in folders below included.
        notes: What could not be read, a sentence each.
    """

    folder: Path
    facts: Facts
    search: SearchRecord | None
    trainings: tuple[TrainingRecord, ...]
    studies: tuple[RankStudyRecord, ...]
    notes: tuple[str, ...]

    @property
    def best(self) -> TrialRecord | None:
        """The student that the search found, or the best one so far; None without any."""
        return self.search.best if self.search else None

    @property
    def students(self) -> list[TrialRecord]:
        """The students that the search scored, the best first; empty without a search."""
        return self.search.scored() if self.search else []

    @property
    def history(self) -> tuple[Mapping[str, float], ...]:
        """A row for each epoch of the distillation, or else of the first training."""
        known = sorted(self.trainings, key=lambda each: each.name != DISTILLED)
        return known[0].history if known else ()

    def teacher(self) -> nn.Module:
        """Build the teacher again, with its trained weights where they are in a file.

        Raises:
            UserError: The run does not record its teacher, or a file is not there any more.
        """
        from diswot.runs.rebuild import recorded_teacher

        result = self.trainings[0].result if self.trainings else {}
        return recorded_teacher(self.folder, self.search.config if self.search else result)

    def student(self) -> nn.Module:
        """Build the student again, with its trained weights if it was trained in this folder.

        Raises:
            UserError: The run does not record its student, or the search has not finished.
        """
        from diswot.runs.rebuild import recorded_student

        return recorded_student(self.folder).network()

    def to_dataframe(self) -> DataFrame:
        """Return a pandas data frame: the trials, or else the epochs, or else the rank study."""
        if self.search is not None:
            return self.search.to_dataframe()
        if self.studies and not self.history:
            return self.studies[0].to_dataframe()
        return data_frame(self.history, "epoch")

    def __repr__(self) -> str:
        held = [repr(self.search)] if self.search else []
        held += [show_number(len(self.trainings), "training")] if self.trainings else []
        held += (
            [show_number(len(self.studies), "rank study", "rank studies")] if self.studies else []
        )
        return f"Run({str(self.folder)!r}: {', '.join(held)})"
