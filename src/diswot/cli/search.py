"""`diswot search`."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from typer import Option

from diswot.cli import budgets, console, inputs, verify, workers
from diswot.cli import found as outcome
from diswot.cli import like as alike
from diswot.cli.grouping import grouped
from diswot.cli.options import (
    BudgetOptions,
    ComputeOptions,
    LatencyOptions,
    OutputOptions,
    ScoringOptions,
    SearchDataOptions,
    StudyOptions,
    TeacherOptions,
    VerifyOptions,
)
from diswot.errors import UserError
from diswot.runs import folder
from diswot.utils.user_code import rooted, short_name

if TYPE_CHECKING:
    from diswot.costs.budget import Budget
    from diswot.costs.latency import Setting
    from diswot.executors.ray import RayCluster
    from diswot.nas.compute import Compute
    from diswot.nas.result import SearchResult
    from diswot.utils.progress import Advance


@dataclass(frozen=True)
class SearchOptions:
    """What is searched, for what, and where the results are kept.

    Attributes:
        space: Search space: a name (diswot list spaces), FILE.py:FUNCTION or
            PACKAGE.MODULE:FUNCTION.
        trials: Number of candidates within the budget to score.
        objectives: What is optimised: score, or score with params, macs, memory or latency for a
            Pareto front, such as score,latency.
        sampler: Sampler of the architectures: evolution, random, tpe, nsga2, or FILE.py:FUNCTION,
            which returns an Optuna sampler. Default: evolution; with several objectives, nsga2.
        proxy: Score to maximise (diswot list proxies, which says which scores need a teacher), or
            FILE.py:FUNCTION. Default: default; for sub-networks of a trained teacher,
            default_inherited.
        out: Run folder, which keeps all results. Default: the first free one of runs/SPACE-1,
            runs/SPACE-2 and so on; with --storage none.
        no_out: Keep no run folder.
    """

    headings: ClassVar = {"Search": "objectives sampler", "Scoring": "proxy", "Output": "no_out"}

    space: str = "s0"
    trials: int = 100
    objectives: str = "score"
    sampler: str | None = None
    proxy: str | None = None
    out: Path | None = None
    no_out: Annotated[bool, Option("--no-out")] = False


@grouped("teacher", "space", "data", "trials", "max_params", "max_macs", "out")
def search(
    *,
    budget: BudgetOptions,
    timing: LatencyOptions,
    goal: SearchOptions,
    teacher: TeacherOptions,
    data: SearchDataOptions,
    scoring: ScoringOptions,
    compute: ComputeOptions,
    verification: VerifyOptions,
    study: StudyOptions,
    output: OutputOptions,
) -> None:
    """Search a space for a teacher's best student, training nothing."""
    with ExitStack() as stack:
        goal = replace(goal, out=stack.enter_context(_run_folder(goal, study)))
        _check_place(goal.out, study, output.quiet)
        cluster = workers.cluster(compute)
        devices = workers.devices(compute.device, compute.devices, on_ray=cluster is not None)
        limits, goals = budgets.budget(budget), budgets.objectives(goal.objectives)
        copied = alike.copied(budget, study.storage)
        stack.enter_context(folder.resumable(study.storage or goal.out))
        advance = stack.enter_context(console.progress(quiet=output.quiet))
        named = inputs.named_teacher(teacher, data)
        verify.check(verification, named, scoring.seed)
        timed = "latency" in {*goals, *limits.limits, *copied}
        how = budgets.setting(timing, named.images.image_shape, wanted=timed)
        inherits = named.trained and scoring.init in (None, "inherited")
        proxy = rooted(goal.proxy or _default_proxy(goal.space, inherits=inherits))
        like = alike.measured(budget.like, copied, named.images, goal.space, how, goal.out)
        limits = alike.tightened(limits, like)
        job = _Job(named, goal, proxy, goals, limits, like, how, scoring, study)
        where = job.compute(compute, devices, cluster)
        found = job.search(where, data.data_root, advance)
        tried = verify.verified(verification, found, named, goal.space, scoring.seed, budget.like,
                                job.place, study, advance)  # fmt: skip
        taught = budgets.teacher_latency(teacher.teacher, named.images, how)
    result = outcome.plain_result(found, tried, how, like, taught)
    if goal.out is not None:
        outcome.keep(goal.out, result, proxy)
    job.show(result, output.as_json)
    for text in job.notes(result, verify.distill_options(verification, tried), output.as_json):
        console.note(text, quiet=output.quiet)


@dataclass(frozen=True)
class _Job:
    """What is searched, for what, and where the search is kept."""

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

    def compute(
        self, options: ComputeOptions, devices: tuple[str, ...], cluster: RayCluster | None
    ) -> Compute:
        """Return where candidates are evaluated, and how latency is measured."""
        from diswot.nas.compute import Compute

        given = options.workers, options.threads, options.timeout
        return Compute(*given, devices, cluster, self.timing)

    def search(self, compute: Compute, data_root: Path | None, advance: Advance) -> SearchResult:
        """Search the space."""
        from diswot.nas.api import StudySettings
        from diswot.nas.api import search as find
        from diswot.nas.evaluator import Scoring
        from diswot.nas.progress import show_progress
        from diswot.spaces.registry import create_space

        shape = len(self.named.images.classes), self.named.images.size
        config, given = self._config(data_root), self.scoring
        how = Scoring(self.proxy, given.init, given.seed, self.named.trained, shape[0])
        return find(
            self.named.model_for([self.proxy], given.init),
            create_space(self.goal.space, *shape),
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
            "space": inputs.from_root(self.goal.space),
            "data": self.named.images.name,
            "data_root": inputs.absolute(data_root),
            "classes": len(self.named.images.classes),
            **self.named.images.image_facts,
            "batch_size": self.scoring.batch_size,
            "seed": self.scoring.seed,
            "proxy": self.proxy,
            "repeats": self.scoring.repeats,
            **({} if self.like is None else {"like": self.like}),
        }

    def show(self, result: dict[str, Any], as_json: bool) -> None:
        """Print the result, and the verification if there was one."""
        if as_json:
            console.show_json(result)
            return
        from diswot.proxies.registry import score_title

        outcome.show(result, score_title(self.proxy))
        if "verified" in result:
            verify.show(result, score_title(self.proxy))

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


def _default_proxy(space: str, *, inherits: bool) -> str:
    """Return the score that is measured to find the best students of a space."""
    return "default_inherited" if inherits and space.startswith("subnet:") else "default"


def _run_folder(goal: SearchOptions, study: StudyOptions) -> AbstractContextManager[Path | None]:
    """Give the folder that keeps the results; a search in a storage needs none."""
    stored = goal.out is None and bool(study.storage or study.resume)
    return folder.chosen(goal.out, short_name(goal.space), no_out=goal.no_out or stored)


def _check_place(out: Path | None, study: StudyOptions, quiet: bool) -> None:
    """Refuse a place that cannot be searched in; say where there is nothing to resume."""
    storage = study.storage
    if out is not None and not study.resume:
        folder.refuse_used(out)
    if storage is not None and "://" not in storage:
        raise UserError(
            f"--storage {storage} is no URL, as sqlite:///studies.db; a folder is --out"
        )
    if study.study != "diswot" and not (storage or out):
        raise UserError("--study goes with --storage or --out: nothing is kept without them")
    if study.resume and not (storage or out):
        raise UserError("name what to resume: the search's --out, or its --storage")
    if study.resume and out and not storage and not folder.has_trials(out):
        text = f"nothing to resume: {out} holds no search; a new one begins"
        console.note(text, quiet=quiet)
