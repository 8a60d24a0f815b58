"""What `diswot search` searches for, and its notes on the result."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diswot.cli import found as outcome
from diswot.cli import inputs
from diswot.utils.user_code import rooted

if TYPE_CHECKING:
    from diswot.cli.options import ScoringOptions, SearchOptions, StudyOptions
    from diswot.costs.budget import Budget
    from diswot.costs.latency import Setting
    from diswot.nas.compute import Compute
    from diswot.nas.result import SearchResult
    from diswot.utils.progress import Advance


@dataclass(frozen=True)
class SearchJob:
    """A search: space, teacher, images and goals, and the place that keeps it.

    Attributes:
        named: The teacher and the images.
        goal: Options of the space, the number of candidates, the sampler and the run folder.
        proxy: Score to maximise.
        objectives: What is optimised.
        limits: Upper limits of a student's costs, those of `like` among them.
        like: The network of --like and its costs; None without one.
        timing: How latency is measured; None if it is neither a limit nor an objective.
        scoring: Options of the batches and the weights that candidates are scored with.
        study: Options of the storage of the trials.
    """

    named: inputs.NamedTeacher
    goal: SearchOptions
    proxy: str
    objectives: list[str]
    limits: Budget
    like: dict[str, Any] | None
    timing: Setting | None
    scoring: ScoringOptions
    study: StudyOptions

    @property
    def place(self) -> str | Path | None:
        """Storage or run folder of the trials; None where nothing is kept."""
        return self.study.storage or self.goal.out

    @property
    def _num_classes(self) -> int:
        return len(self.named.images.classes)

    def space(self) -> Any:
        """Return the space, for the classes and the size of the images."""
        from diswot.spaces.registry import create_space

        return create_space(self.goal.space, self._num_classes, self.named.images.size)

    def search(self, compute: Compute, data_root: Path | None, advance: Advance) -> SearchResult:
        """Search the space."""
        from diswot.nas.api import StudySettings
        from diswot.nas.api import search as find
        from diswot.nas.evaluator import Scoring
        from diswot.nas.progress import show_progress

        config, given = self._config(data_root), self.scoring
        how = Scoring(self.proxy, given.init, given.seed, self.named.trained, self._num_classes)
        return find(
            self.named.model_for([self.proxy], given.init),
            self.space(),
            inputs.scoring_batches(self.named.images, given),
            n_trials=self.goal.trials,
            objectives=self.objectives,
            budget=self.limits,
            sampler=self.goal.sampler,
            scoring=how,
            compute=compute,
            study=StudySettings(
                self.place, self.study.study, self.study.resume, config, self.goal.out, record=False
            ),
            callbacks=[partial(show_progress, advance)],
        )

    def _config(self, data_root: Path | None) -> dict[str, Any]:
        """Return what a resumed search must share, and what a distillation needs."""
        timing = {} if self.timing is None else self.timing.facts
        return {
            **{f"latency_{name}": value for name, value in timing.items()},
            **inputs.teacher_facts(self.named.options),
            "space": rooted(self.goal.space),
            "data": self.named.images.name,
            "data_root": inputs.absolute(data_root),
            "classes": self._num_classes,
            **self.named.images.image_facts,
            "batch_size": self.scoring.batch_size,
            "seed": self.scoring.seed,
            "proxy": self.proxy,
            "repeats": self.scoring.repeats,
            **({} if self.like is None else {"like": self.like}),
        }

    def notes(self, result: dict[str, Any], settings: str, as_json: bool) -> list[str]:
        """Return notes on the result; beside JSON, only those on the teacher."""
        teacher = self.named.remarks([self.proxy], self.scoring.init)
        if as_json:
            return teacher
        free = not self.limits.limits and self.objectives == ["score"]
        out, storage = self.goal.out, self.study.storage
        kept = outcome.kept_in(out, storage, settings, trained=self.named.trained)
        found = outcome.remarks(result, self.goal.trials, self.timing, out)
        return [*found, *teacher, *([outcome.NO_LIMIT] if free else []), *kept]
