"""`diswot search`."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diswot.cli import budgets, console, inputs, options
from diswot.cli import found as outcome
from diswot.cli import verify as checks
from diswot.cli import workers as workplaces
from diswot.errors import UserError
from diswot.runs import folder
from diswot.storage.run_files import RUN

if TYPE_CHECKING:
    from collections.abc import Callable

    from diswot.costs.latency import Setting
    from diswot.nas.driver import SearchProgress


def search(
    teacher: options.Teacher = "resnet56",
    space: options.Space = "s0",
    data: options.DataName = "noise",
    *,
    trials: options.Trials = 100,
    max_params: options.MaxParams = None,
    max_macs: options.MaxMacs = None,
    max_memory: options.MaxMemory = None,
    max_latency: options.MaxLatency = None,
    objectives: options.Objectives = "score",
    latency_engine: options.LatencyEngine = "torch",
    latency_threads: options.LatencyThreads = 1,
    proxy: options.Proxy = "default",
    sampler: options.Sampler = None,
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
    workers: options.SearchWorkers = None,
    threads: options.Threads = None,
    timeout: options.Timeout = None,
    device: options.Device = None,
    devices: options.Devices = None,
    ray: options.Ray = None,
    ray_cpus: options.RayCpus = None,
    ray_gpus: options.RayGpus = None,
    out: options.RunFolder = None,
    verify: options.Verify = 0,
    verify_epochs: options.VerifyEpochs = None,
    verify_trials: options.VerifyTrials = None,
    tune: options.Tune = None,
    recipe: options.RecipeName = None,
    losses: options.Losses = None,
    storage: options.Storage = None,
    study: options.Study = "diswot",
    resume: options.Resume = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Search a space for a teacher's best student, training nothing."""
    from diswot.nas.api import Scoring, StudySettings
    from diswot.nas.api import search as find
    from diswot.nas.compute import Compute
    from diswot.spaces.registry import create_space

    _check_place(out, storage, study, resume, quiet)
    cluster = workplaces.cluster(ray, ray_cpus, ray_gpus)
    places = workplaces.places(device, devices, cluster)
    wish = checks.Wish(verify, verify_epochs, verify_trials, tune, recipe, losses, seed)
    with ExitStack() as stack:
        stack.enter_context(folder.resumable(storage or out))
        advance = stack.enter_context(console.progress(quiet=quiet))
        _quiet_optuna()
        limits = budgets.budget(max_params, max_macs, max_memory, max_latency)
        goals = budgets.objectives(objectives)
        look = inputs.normalisation(mean, std)
        master = inputs.master(
            teacher, teacher_weights, pretrained, data, classes, image_size, data_root, **look
        )
        images, count = master.images, len(master.images.classes)
        wish.check(images, trained=master.trained)
        timed = "latency" in {*goals, *limits.limits}
        how = budgets.setting(timed, images.image_shape, latency_engine, latency_threads)
        drawn = {"batch_size": batch_size, "seed": seed, "proxy": proxy, "repeats": repeats}
        config = {**_config(master, space, data_root, how), **drawn}
        wanted = {"budget": asdict(limits), "objectives": list(goals)}
        wanted |= {"sampler": sampler} if sampler is not None else {}
        found = find(
            master.model(),
            create_space(space, count, images.size),
            inputs.scoring_batches(images, batch_size, repeats, seed),
            n_trials=trials,
            objectives=goals,
            budget=limits,
            sampler=sampler,
            scoring=Scoring(proxy, init, seed, master.trained),
            compute=Compute(workers, threads, timeout, places, cluster, how),
            study=StudySettings(storage or out, study, resume, config),
            callbacks=[_told(out, config | wanted, _kept(storage, study), advance)],
        )
        place = storage or out
        tried = checks.verified(wish, found, master, space, place, study, resume, advance)
    told = outcome.result(found, tried, how)
    if out is not None:
        outcome.keep(out, told, proxy)
    if as_json:
        console.show_json(told)
    else:
        outcome.show(told, proxy)
        if tried is not None:
            checks.show(told["verified"], proxy, wish.most)
    notes = [] if as_json else outcome.remarks(told, trials, how)
    settings = checks.options(wish, tried)
    last = [] if as_json else outcome.kept_in(out, storage, settings, trained=master.trained)
    for text in (*notes, *master.remarks([proxy]), *last):
        console.note(text, quiet=quiet)


def _check_place(
    out: Path | None, storage: str | None, study: str, resume: bool, quiet: bool
) -> None:
    """Refuse a place that cannot be searched in; say so where nothing is to go on with."""
    if out is not None and not resume:
        folder.refuse_used(out)
    if storage is not None and "://" not in storage:
        raise UserError(
            f"--storage {storage} is no URL, as sqlite:///studies.db; a folder is --out"
        )
    if study != "diswot" and not (storage or out):
        raise UserError("--study goes with --storage, or --out: nothing is kept without")
    if resume and not (storage or out):
        raise UserError("name what to go on with: the search's --out, or its --storage")
    if resume and out and not storage and (said := folder.nothing_yet(out)):
        console.note(said, quiet=quiet)


def _config(
    master: inputs.Master, space: str, root: Path | None, how: Setting | None
) -> dict[str, Any]:
    """What a distillation of the found student needs to know, and a resumed search must share."""
    timing = {} if how is None else how.facts
    return {
        **{f"latency_{name}": value for name, value in timing.items()},
        "teacher": inputs.from_root(master.name),
        "pretrained": master.pretrained,
        "teacher_weights": master.weights and str(Path(master.weights).resolve()),
        "space": inputs.from_root(space),
        "data": master.images.name,
        "data_root": root and str(root.resolve()),
        "classes": len(master.images.classes),
        **inputs.look(master.images),
    }


def _kept(storage: str | None, study: str) -> dict[str, Any]:
    """Where the trials are; a password is not written down."""
    from diswot.utils.environment import masked

    return {"storage": storage and masked(storage), "name": study}


def _told(
    out: Path | None, config: dict[str, Any], kept: dict[str, Any], advance: console.Advance
) -> Callable[[SearchProgress], None]:
    """Moves the bar; the run folder is told of the search once it is under way."""
    from diswot.utils import files

    def on_trial(p: SearchProgress) -> None:
        if out is not None and not (out / RUN).exists():
            files.write_json(out / RUN, {**folder.facts(), "config": config, "study": kept})
        advance("scoring", p.done, p.total, "" if p.best is None else f"best {p.best:.4f}")

    return on_trial


def _quiet_optuna() -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
