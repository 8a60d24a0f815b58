"""`diswot search`."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

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
    SearchOptions,
    StudyOptions,
    TeacherOptions,
    VerifyOptions,
)
from diswot.cli.search_job import SearchJob
from diswot.errors import UserError
from diswot.runs import folder
from diswot.storage.run_writer import SEARCH
from diswot.utils.user_code import rooted, short_name


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
        where = workers.compute(compute)
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
        job = SearchJob(named, goal, proxy, goals, limits, like, how, scoring, study)
        found = job.search(replace(where, latency=how), data.data_root, advance)
        taught = budgets.teacher_latency(teacher.teacher, named.images, how)
        if verification.verify:  # which may break off, and the search is whole without it
            outcome.keep(goal.out, outcome.plain_result(found, None, how, like, taught), proxy)
        tried = verify.verified(verification, job, found, advance)
    result = outcome.plain_result(found, tried, how, like, taught)
    outcome.keep(goal.out, result, proxy)
    _show(result, proxy, output.as_json)
    settings = verify.distill_options(verification, tried)
    console.note(*job.notes(result, settings, output.as_json), quiet=output.quiet)


def _show(result: dict[str, Any], proxy: str, as_json: bool) -> None:
    """Print the result, and the verification if there was one."""
    if as_json:
        console.show_json(result)
        return
    from diswot.proxies.registry import score_title

    outcome.show(result, score_title(proxy))
    if "verified" in result:
        verify.show(result, score_title(proxy))


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
    if out is not None:
        folder.refuse_used(out, SEARCH, resume=study.resume)
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
