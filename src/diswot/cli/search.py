"""`diswot search`."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from diswot.cli import budgets, console, inputs, options, verify, workers
from diswot.cli import found as outcome
from diswot.cli.grouping import grouped
from diswot.cli.options import (
    BudgetOptions,
    ComputeOptions,
    DataOptions,
    LatencyOptions,
    OutputOptions,
    ScoringOptions,
    StudyOptions,
    TeacherOptions,
    VerifyOptions,
)
from diswot.errors import UserError
from diswot.runs import folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from diswot.costs.budget import Budget
    from diswot.costs.latency import Setting
    from diswot.executors.ray import RayCluster
    from diswot.nas.driver import SearchProgress
    from diswot.nas.result import SearchResult

_Trials = Annotated[int, Option(help="Number of candidates within the budget to score.")]
_Objectives = Annotated[
    str,
    Option(
        help="What is optimised: score, or score with params, macs, memory or latency for a "
        "Pareto front, such as score,latency."
    ),
]
_Proxy = Annotated[
    str,
    Option(help="Score to maximise (diswot list proxies, which says which scores need a teacher)."),
]
_Sampler = Annotated[
    str | None,
    Option(
        help="Sampler of the architectures: evolution, random, tpe or nsga2. Default: evolution; "
        "with several objectives, nsga2."
    ),
]


@grouped("teacher", "space", "data")
def search(
    *,
    space: options.SpaceName = "s0",
    trials: _Trials = 100,
    budget: BudgetOptions,
    objectives: _Objectives = "score",
    timing: LatencyOptions,
    proxy: _Proxy = "default",
    sampler: _Sampler = None,
    teacher: TeacherOptions,
    data: DataOptions,
    scoring: ScoringOptions,
    compute: ComputeOptions,
    out: options.RunFolder = None,
    verification: VerifyOptions,
    study: StudyOptions,
    output: OutputOptions,
) -> None:
    """Search a space for a teacher's best student, training nothing."""
    _check_place(out, study, output.quiet)
    cluster = workers.cluster(compute)
    devices = workers.devices(compute.device, compute.devices, on_ray=cluster is not None)
    with ExitStack() as stack:
        stack.enter_context(folder.resumable(study.storage or out))
        advance = stack.enter_context(console.progress(quiet=output.quiet))
        limits, goals = budgets.budget(budget), budgets.objectives(objectives)
        named = inputs.named_teacher(teacher, data)
        verify.check(verification, named, scoring.seed)
        timed = "latency" in {*goals, *limits.limits}
        how = budgets.setting(timing, named.images.image_shape, wanted=timed)
        goal = _Goal(space, trials, proxy, goals, limits, sampler, how)
        job = _Search(goal, named, scoring, compute, devices, cluster, study, out)
        found = job.run(data.data_root, advance)
        tried = verify.verified(
            verification, found, named, space, scoring.seed, study.storage or out, study, advance
        )
    result = outcome.result(found, tried, how)
    if out is not None:
        outcome.keep(out, result, proxy)
    settings = verify.distill_options(verification, tried)
    _show(result, goal, verification, output)
    for text in _notes(result, goal, named, out, study, settings, output):
        console.note(text, quiet=output.quiet)


@dataclass(frozen=True)
class _Goal:
    """What is searched for."""

    space: str
    trials: int
    proxy: str
    objectives: list[str]
    limits: Budget
    sampler: str | None
    timing: Setting | None

    @property
    def facts(self) -> dict[str, Any]:
        """Return the objectives, the limits and the sampler, for the run folder."""
        given = {} if self.sampler is None else {"sampler": self.sampler}
        return {"budget": asdict(self.limits), "objectives": list(self.objectives), **given}


@dataclass(frozen=True)
class _Search:
    """A search with everything that it needs."""

    goal: _Goal
    named: inputs.NamedTeacher
    scoring: ScoringOptions
    compute: ComputeOptions
    devices: tuple[str, ...]
    cluster: RayCluster | None
    study: StudyOptions
    out: Path | None

    def run(self, data_root: Path | None, advance: console.Advance) -> SearchResult:
        """Search the space.

        Args:
            data_root: Folder of the images, for the run folder.
            advance: Moves the progress bar.
        """
        import optuna

        from diswot.nas.api import Scoring, StudySettings
        from diswot.nas.api import search as find
        from diswot.nas.compute import Compute
        from diswot.spaces.registry import create_space

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        goal, named, scoring, compute = self.goal, self.named, self.scoring, self.compute
        shape = len(named.images.classes), named.images.size
        config = self._config(data_root)
        return find(
            named.model(),
            create_space(goal.space, *shape),
            inputs.scoring_batches(named.images, scoring),
            n_trials=goal.trials,
            objectives=goal.objectives,
            budget=goal.limits,
            sampler=goal.sampler,
            scoring=Scoring(goal.proxy, scoring.init, scoring.seed, named.trained),
            compute=Compute(
                compute.workers,
                compute.threads,
                compute.timeout,
                self.devices,
                self.cluster,
                goal.timing,
            ),
            study=StudySettings(
                self.study.storage or self.out, self.study.study, self.study.resume, config
            ),
            callbacks=[self._callback(config | goal.facts, advance)],
        )

    def _config(self, data_root: Path | None) -> dict[str, Any]:
        """Return what a resumed search must share, and what a distillation needs."""
        timing, named = self.goal.timing, self.named
        facts = {} if timing is None else timing.facts
        return {
            **{f"latency_{name}": value for name, value in facts.items()},
            "teacher": inputs.from_root(named.name),
            "pretrained": named.pretrained,
            "teacher_weights": inputs.absolute(named.weights),
            "space": inputs.from_root(self.goal.space),
            "data": named.images.name,
            "data_root": inputs.absolute(data_root),
            "classes": len(named.images.classes),
            **inputs.image_facts(named.images),
            "batch_size": self.scoring.batch_size,
            "seed": self.scoring.seed,
            "proxy": self.goal.proxy,
            "repeats": self.scoring.repeats,
        }

    def _callback(
        self, config: dict[str, Any], advance: console.Advance
    ) -> Callable[[SearchProgress], None]:
        """Return what moves the progress bar, and writes the run folder at the first trial."""
        from diswot.utils.environment import masked

        storage = self.study.storage
        study = {"storage": storage and masked(storage), "name": self.study.study}

        def report(p: SearchProgress) -> None:
            if self.out is not None:
                folder.write_search(self.out, config, study)
            advance("scoring", p.done, p.total, "" if p.best is None else f"best {p.best:.4f}")

        return report


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


def _show(
    result: dict[str, Any], goal: _Goal, verification: VerifyOptions, output: OutputOptions
) -> None:
    """Print the result, and the verification if there was one."""
    if output.as_json:
        console.show_json(result)
        return
    outcome.show(result, goal.proxy)
    if "verified" in result:
        verify.show(result["verified"], goal.proxy, verification.verify_epochs)


def _notes(
    result: dict[str, Any],
    goal: _Goal,
    named: inputs.NamedTeacher,
    out: Path | None,
    study: StudyOptions,
    settings: str,
    output: OutputOptions,
) -> list[str]:
    """Return what to know beside the result; beside JSON, only what concerns the teacher."""
    teacher = named.remarks([goal.proxy])
    if output.as_json:
        return teacher
    kept = outcome.kept_in(out, study.storage, settings, trained=named.trained)
    return [*outcome.remarks(result, goal.trials, goal.timing), *teacher, *kept]
