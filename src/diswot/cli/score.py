"""`diswot score`."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from typer import Option

from diswot.cli import budgets, console, inputs, score_names, workers
from diswot.cli.grouping import grouped
from diswot.cli.options import (
    DataOptions,
    OutputOptions,
    ProxyOptions,
    ScoreLatencyOptions,
    ScoringOptions,
    TeacherOptions,
)
from diswot.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import nn

    from diswot.data.dataset import Dataset
    from diswot.proxies.scorer import Scorer
    from diswot.utils.progress import Advance

Found = list[float] | str  # a score a repeat, or why there is none


@dataclass(frozen=True)
class ScoreOptions(ProxyOptions):
    """Options of the student that is scored, and of its scores.

    Attributes:
        student: Student to score: parameters as JSON, or a network's name.
        device: Device that scores: cpu, cuda or cuda:1. Default: cpu.
        latency: Measure the latency of the student for one image.
    """

    headings: ClassVar = {"Compute": "device", "Latency": "latency"}

    student: str = field(kw_only=True)
    device: str | None = None
    latency: Annotated[bool, Option("--latency")] = False


@grouped("student", "teacher", "space", "data", "proxies")
def score(
    *,
    teacher: TeacherOptions,
    data: DataOptions,
    scoring: ScoringOptions,
    wanted: ScoreOptions,
    timing: ScoreLatencyOptions,
    output: OutputOptions,
) -> None:
    """Score one student, training nothing."""
    names = score_names.proxy_names(wanted.proxies, teacher, scoring.init)
    (place,) = workers.devices(wanted.device, None) or ("cpu",)
    with console.progress(quiet=output.quiet) as advance:
        named = inputs.named_teacher(teacher, data)
        build, params = inputs.named_student(wanted.student, wanted.space, named.images)
        found = _found(named, build, names, scoring, place, advance)
        how = budgets.setting(timing, named.images.image_shape, wanted=wanted.latency)
        costs = _costs(build, named.images)
        costs["latency"] = how and budgets.latency(params, wanted.space, named.images, how)
    result = {"student": params, **_scores(found, every=wanted.proxies == "all"), "costs": costs}
    if output.as_json:
        console.show_json({**result, "latency_setting": how and how.facts})
        return
    _show(wanted.student, result)
    notes = [f"not scored: {reason}" for reason in result["unscored"].values()]
    notes += [*budgets.notes([costs], how), *named.remarks(names, scoring.init)]
    console.note(*notes, quiet=output.quiet)


def _found(
    named: inputs.NamedTeacher,
    build: Callable[[], nn.Module],
    names: list[str],
    scoring: ScoringOptions,
    device: str,
    advance: Advance,
) -> dict[str, Found]:
    """Return what each proxy says of the student, in the order of the names."""
    from diswot.proxies.registry import by_init
    from diswot.proxies.scorer import scorer

    teacher = named.model_for(names, scoring.init)
    batches = inputs.scoring_batches(named.images, scoring)
    found: dict[str, Found] = {}
    for init, alike in by_init(names, scoring.init).items():
        fixed = scorer(
            teacher if score_names.needs_teacher(alike, init) else None,
            batches,
            alike,
            init=init,
            seed=scoring.seed,
            trained_teacher=named.trained,
            device=device,
            num_classes=len(named.images.classes),
        )
        for group in _groups(alike):
            advance("scoring", len(found), len(names), group[0])
            found |= _score(fixed, build, group)
    return {name: found[name] for name in names}


def _groups(names: list[str]) -> list[list[str]]:
    """Return one group of all proxies that share a forward pass, and one of every other proxy."""
    from diswot.proxies.registry import get_proxy

    sharing = [name for name in names if get_proxy(name).cost == "forward"]
    return [group for group in (sharing, *([n] for n in names if n not in sharing)) if group]


def _score(fixed: Scorer, build: Callable[[], nn.Module], names: list[str]) -> dict[str, Found]:
    """Return what some proxies say of the student: one may not fit where others do."""
    from diswot.proxies.scorer import NotScored

    with _failing_student():
        outcomes = fixed.outcomes(fixed.students(build), names)
    found: dict[str, Found] = {}
    for name, repeats in outcomes.items():
        failed = [each for each in repeats if isinstance(each, NotScored)]
        values = [float(each) for each in repeats if not isinstance(each, NotScored)]
        reasons = [error.reason if error.misfit else str(error) for error in failed]
        found[name] = reasons[0] if reasons else values
    return found


def _scores(found: Mapping[str, Found], *, every: bool) -> dict[str, Any]:
    """Return means, standard errors, values, and reasons of what has no score.

    If the user asked for every proxy, some need not fit.
    """
    from diswot.proxies.registry import get_proxy
    from diswot.proxies.scorer import standard_error

    values = {name: each for name, each in found.items() if not isinstance(each, str)}
    unscored = {name: each for name, each in found.items() if isinstance(each, str)}
    if unscored and not (every and any(get_proxy(name).needs_forward for name in values)):
        raise UserError(f"the student has no score: {next(iter(unscored.values()))}")
    return {
        "scores": {name: fmean(each) for name, each in values.items()},
        "standard_errors": {name: standard_error(each) for name, each in values.items()},
        "repeats": values,
        "unscored": unscored,
    }


def _costs(build: Callable[[], nn.Module], images: Dataset) -> dict[str, Any]:
    from diswot.costs.budget import Costs
    from diswot.models.initialization import fresh

    with _failing_student():
        costs = Costs(fresh(build, "default", 0), images.image_shape)
        return {"model_params": costs.params, **asdict(costs.counts)}


@contextmanager
def _failing_student() -> Iterator[None]:
    """Turn any error of a user's network into one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # a user's network may raise anything
        raise UserError(f"the student fails: {type(error).__name__}: {error}") from error


def _show(student: str, result: Mapping[str, Any]) -> None:
    """Print a row for each score under the sizes of the student."""
    from diswot.utils.user_code import short_name

    errors = result["standard_errors"]
    rows = [
        [short_name(name), f"{mean:.6g}", "" if errors[name] is None else f"{errors[name]:.2g}"]
        for name, mean in result["scores"].items()
    ]
    columns = budgets.columns([result["costs"]])
    sizes = ", ".join(f"{cells[0]} {title}" for title, cells in columns.items())
    console.table(f"scores of {student}: {sizes}", ["proxy", "score", "standard error"], rows)
