"""`diswot score`."""

from __future__ import annotations

from dataclasses import asdict
from statistics import fmean
from typing import TYPE_CHECKING, Any

from diswot.cli import budgets, console, inputs, options
from diswot.cli import workers as workplaces
from diswot.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

    from diswot.proxies.scorer import Scorer


def score(
    student: options.Student,
    teacher: options.Teacher = "resnet56",
    space: options.Space = "s0",
    data: options.DataName = "noise",
    *,
    proxies: options.Proxies = "all",
    teacher_weights: options.Weights = None,
    pretrained: options.Pretrained = False,
    mean: options.Mean = None,
    std: options.Std = None,
    data_root: options.DataRoot = None,
    classes: options.Classes = None,
    image_size: options.ImageSize = None,
    batch_size: options.ScoringBatch = 64,
    repeats: options.Repeats = 1,
    init: options.Init = None,
    seed: options.Seed = 0,
    device: options.Device = None,
    latency: options.Latency = False,
    latency_engine: options.LatencyEngine = "torch",
    latency_threads: options.LatencyThreads = 1,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Score one student, training nothing."""
    from diswot.proxies.registry import PROXIES, by_init, get_proxy
    from diswot.proxies.scorer import scorer, standard_error

    names = list(PROXIES) if proxies == "all" else [n.strip() for n in proxies.split(",")]
    needing = [name for name in names if get_proxy(name).needs_forward]
    (place,) = workplaces.places(device, None) or ("cpu",)
    with console.progress(quiet=quiet) as advance:
        look = inputs.normalisation(mean, std)
        master = inputs.master(
            teacher, teacher_weights, pretrained, data, classes, image_size, data_root, **look
        )
        images, count = master.images, len(master.images.classes)
        build, params = inputs.student_builder(student, space, count, images.size)
        model = master.model()
        batches = inputs.scoring_batches(images, batch_size, repeats, seed)
        outcomes: dict[str, list[float] | str] = {}
        for own, alike in by_init(names, init).items():
            fixed = scorer(
                model,
                batches,
                init=own,
                seed=seed,
                trained_teacher=master.trained,
                device=place,
            )
            for group in _groups(alike):
                advance("scoring", len(outcomes), len(names), ", ".join(group[:1]))
                outcomes |= _score(fixed, build, group)
        how = budgets.setting(latency, images.image_shape, latency_engine, latency_threads)
        costs = _costs(build, images.image_shape)
        costs["latency"] = how and budgets.latency(student, space, count, images.size, how)
    ordered = [(name, outcomes[name]) for name in names]
    values = {name: outcome for name, outcome in ordered if not isinstance(outcome, str)}
    unscored = {name: outcome for name, outcome in ordered if isinstance(outcome, str)}
    if unscored and (proxies != "all" or all(name in unscored for name in needing)):
        raise UserError(f"the student has no score: {next(iter(unscored.values()))}")
    scores = {name: fmean(v) for name, v in values.items()}
    errors = {name: standard_error(v) for name, v in values.items()}
    if as_json:
        result = {"student": params, "scores": scores, "standard_errors": errors}
        result |= {"repeats": values, "unscored": unscored, "costs": costs}
        console.show_json({**result, "latency_setting": how and how.facts})
        return
    _show(student, scores, errors, costs)
    notes = [f"not scored: {reason}" for reason in unscored.values()]
    for text in (*notes, *budgets.notes([costs], how), *master.remarks(names)):
        console.note(text, quiet=quiet)


def _show(
    student: str,
    scores: Mapping[str, float],
    errors: Mapping[str, float | None],
    costs: Mapping[str, Any],
) -> None:
    """A row a score, under the sizes."""
    rows = [[name, f"{score:.6g}", _show_error(errors[name])] for name, score in scores.items()]
    sizes = ", ".join(f"{cells[0]} {title}" for title, cells in budgets.columns([costs]).items())
    console.table(f"scores of {student}: {sizes}", ["proxy", "score", "standard error"], rows)


def _costs(build: Callable[[], nn.Module], image_shape: tuple[int, int, int]) -> dict[str, Any]:
    """Return what the student costs, without its latency."""
    from diswot.costs.budget import Costs
    from diswot.models.initialization import fresh

    try:
        costs = Costs(fresh(build, "default", 0), image_shape)
        return {"model_params": costs.params, **asdict(costs.counts)}
    except UserError:
        raise
    except Exception as error:  # whatever a user's network raises is told in one line
        raise UserError(f"the student fails: {type(error).__name__}: {error}") from error


def _show_error(error: float | None) -> str:
    return "" if error is None else f"{error:.2g}"


def _groups(names: list[str]) -> list[list[str]]:
    """All proxies that share one forward pass in a group, and every other one alone."""
    from diswot.proxies.registry import PROXIES

    sharing = [name for name in names if PROXIES[name].cost == "forward"]
    return [group for group in (sharing, *([n] for n in names if n not in sharing)) if group]


def _score(
    fixed: Scorer, build: Callable[[], nn.Module], names: list[str]
) -> dict[str, list[float] | str]:
    """Scores by proxy, one a repeat, or why there is none: one may not fit where others do."""
    from diswot.proxies.scorer import NotScored

    try:
        found = fixed.outcomes(fixed.students(build), names)
    except UserError:
        raise
    except Exception as error:  # whatever a user's network raises is told in one line
        raise UserError(f"the student fails: {type(error).__name__}: {error}") from error
    scores: dict[str, list[float] | str] = {}
    for name, outcomes in found.items():
        failed = [outcome for outcome in outcomes if isinstance(outcome, NotScored)]
        values = [float(outcome) for outcome in outcomes if not isinstance(outcome, NotScored)]
        reasons = [error.reason if error.misfit else str(error) for error in failed]
        scores[name] = reasons[0] if reasons else values
    return scores
