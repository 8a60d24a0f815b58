"""`diswot.search`: search a space for the student with the highest score."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import optuna
import torch
from torch import nn

from diswot.costs.budget import COSTS, Budget
from diswot.costs.latency import Setting
from diswot.data.dataset import BATCH, Batch, Dataset
from diswot.data.own import as_dataset, is_data
from diswot.errors import UserError, unknown
from diswot.models.initialization import INHERITED
from diswot.nas.compute import Compute
from diswot.nas.driver import Driver
from diswot.nas.evaluator import Evaluator, Scoring
from diswot.nas.peers import Peers
from diswot.nas.progress import Callback, SearchProgress, show_progress
from diswot.nas.proposal import Proposer
from diswot.nas.result import SearchResult, search_result
from diswot.nas.samplers import SamplerLike, create_sampler
from diswot.observation.modes import require_network
from diswot.proxies.registry import ProxyLike, get_proxy
from diswot.spaces.registry import NamedSpace, Params, enumerate_params
from diswot.spaces.validation import Build
from diswot.storage.run_files import FOUND, LATENCIES
from diswot.storage.run_writer import SEARCH, require_kind, write_run
from diswot.storage.study import alone, name_metrics, open_study, opened
from diswot.utils import files
from diswot.utils.agreement import plain, require_same
from diswot.utils.devices import CPU
from diswot.utils.devices import kind as device_kind
from diswot.utils.environment import masked
from diswot.utils.progress import shown_progress
from diswot.utils.repeats import repeats_counted
from diswot.utils.user_code import name_of, rooted


@dataclass(frozen=True)
class StudySettings:
    """Where the trials of a search are kept.

    Attributes:
        storage: A run folder for a journal, or an Optuna storage URL; memory if None.
        name: Name of the study in the storage.
        resume: Whether to continue the study that is there. A study in a database is joined in
            any case: several processes, on any machine, may work on it at the same time.
        facts: Plain facts that a resumed study must share, such as the name of the teacher. A run
            folder records them: `teacher` and `data` by name let `report` draw the networks.
        out: Folder for `run.json` and `found.json`, which `load_run`, `report`, `compare` and
            `export` read. Default: the run folder; nothing of a search in a database or memory.
        record: Whether to write `found.json`. A command writes it after its verification.
    """

    storage: str | Path | None = None
    name: str = "diswot"
    resume: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)
    out: Path | None = None
    record: bool = True

    @property
    def shared(self) -> bool:
        """Return whether several processes may work on the study."""
        return "://" in str(self.storage)

    @property
    def folder(self) -> Path | None:
        """Return the run folder; None for a database or memory."""
        return None if self.storage is None or self.shared else Path(str(self.storage))

    @property
    def results(self) -> Path | None:
        """Return the folder of settings and result; None where they are not written."""
        return self.out or self.folder


_SCORING, _COMPUTE, _STUDY = Scoring(), Compute(), StudySettings()


def search(
    teacher: nn.Module | None,
    space: Build,
    batches: Batch | Sequence[Batch] | Dataset | object,
    *,
    n_trials: int = 500,
    objectives: Sequence[str] = ("score",),
    budget: Budget | None = None,
    sampler: SamplerLike | None = None,
    scoring: Scoring | ProxyLike = _SCORING,
    compute: Compute | int = _COMPUTE,
    study: StudySettings | str | Path = _STUDY,
    callbacks: Sequence[Callback] = (),
    progress: bool = False,
) -> SearchResult:
    """Search a space for the student with the highest score, without training any.

    A space with at most `n_trials` architectures is searched exhaustively, and no architecture is
    evaluated twice. `SearchResult.stopped` says why a search ended sooner.

    Args:
        teacher: The teacher, observed once a batch; None where the proxy compares with none.
        space: Function of an Optuna trial that returns a network.
        batches: Normalised images B x C x H x W and labels B; or one such batch a repeat; or a data
            set, a torch map data set of (image, label) or a loader of one, of which one batch of 64
            images is taken.
        n_trials: Number of candidates within the budget.
        objectives: `score`, which is maximised, and names of `COSTS`, which are minimised; the
            result of several is their Pareto front.
        budget: Limits; candidates outside are not scored.
        sampler: A key of `SAMPLERS`, an Optuna sampler, or a function that returns one, by its
            text or itself. Default: evolution, or nsga2 for several objectives.
        scoring: How candidates are scored, or the name or function of a proxy alone.
        compute: Where candidates are evaluated; or the number of worker processes alone.
        study: Where the trials are kept; or the run folder or storage URL alone.
        callbacks: Called with a `SearchProgress` before the first trial and after each.
        progress: Whether progress is shown on standard error.

    Raises:
        UserError: An argument has the wrong type, a name is unknown, nothing fits the budget, or
            the study cannot be resumed.
        SearchFailed: Every candidate failed.
    """
    evaluator = _evaluator(teacher, space, batches, scoring, budget, objectives)
    compute = Compute(compute) if isinstance(compute, int) else compute
    study = StudySettings(study) if isinstance(study, str | Path) else study
    chosen = _sampler(evaluator.objectives, sampler)
    if n_trials < 1 or not evaluator.batches:
        raise UserError("a search needs at least one trial and one batch")
    with torch.random.fork_rng(devices=[]), repeats_counted(), contextlib.ExitStack() as stack:
        if progress:
            callbacks = [*callbacks, partial(show_progress, stack.enter_context(shown_progress()))]
        plan = enumerate_params(space, n_trials)
        driver = stack.enter_context(_driver(evaluator, chosen, compute, study))
        _write_settings(study, driver.study, named_facts(space, batches))
        _drive(driver, plan, n_trials, callbacks)
        found = search_result(driver, evaluator, exhaustive=plan is not None)
    _write_result(study, found, compute)
    return found


def _evaluator(
    teacher: nn.Module | None,
    space: Build,
    batches: object,
    scoring: Scoring | ProxyLike,
    budget: Budget | None,
    objectives: Sequence[str],
) -> Evaluator:
    """Return how candidates are evaluated, with every default filled in.

    Raises:
        UserError: An argument has the wrong type, or an objective is unknown.
    """
    _check_types(teacher, space, budget)
    how = _definite(scoring)
    repeats, classes = _batches(batches, how.seed)
    how = replace(how, num_classes=how.num_classes or classes)
    wanted = tuple(objectives.split(",") if isinstance(objectives, str) else objectives)
    return Evaluator(teacher, space, repeats, how, budget or Budget(), wanted)


def _definite(scoring: Scoring | ProxyLike) -> Scoring:
    """Return how candidates are scored, with the initialisation of the proxy where none is set."""
    how = scoring if isinstance(scoring, Scoring) else Scoring(scoring)
    proxy = rooted(how.proxy)
    init = how.init or get_proxy(proxy).init
    trained = how.trained_teacher or init == INHERITED
    return replace(how, proxy=proxy, init=init, trained_teacher=trained)


def _check_types(teacher: object, space: object, budget: object) -> None:
    """Refuse names and other things in place of a network, a space and a budget."""
    if teacher is not None:
        require_network("teacher", teacher)
    if isinstance(space, nn.Module) or not callable(space):
        made = f"diswot.create_space({space!r}, num_classes=...)"
        hint = f"; make it: {made}" if isinstance(space, str) else ""
        kind = type(space).__name__
        raise UserError(f"the space must be a function of a trial, not a {kind}{hint}")
    if budget is not None and not isinstance(budget, Budget):
        raise UserError(f"the budget must be a diswot.Budget, not a {type(budget).__name__}")


def _batches(given: object, seed: int) -> tuple[tuple[Batch, ...], int | None]:
    """Return one batch a repeat, and the number of classes of a data set."""
    if is_data(given):
        given = as_dataset(given)
    if isinstance(given, Dataset):
        return (given.default_batch(seed),), len(given.classes)
    repeats = (given,) if isinstance(given, Batch) else given
    if not isinstance(repeats, Sequence) or not all(isinstance(each, Batch) for each in repeats):
        made = f"diswot.create_dataset({given!r})"
        hint = f"; make it: {made}" if isinstance(given, str) else ", data.batch(64)"
        raise UserError(f"the data must be a diswot data set or a batch of one{hint}")
    return tuple(repeats), None


@contextlib.contextmanager
def _driver(
    evaluator: Evaluator, sampler: SamplerLike, compute: Compute, study: StudySettings
) -> Iterator[Driver]:
    """Start the workers and open the study; stop and close them at the end."""
    proposals = create_sampler(sampler, evaluator.scoring.seed)
    if study.results is not None:
        require_kind(study.results, SEARCH)
    with contextlib.ExitStack() as stack:
        latencies = None if study.folder is None else study.folder / LATENCIES
        executor = stack.enter_context(compute.executor(evaluator, latencies))
        held = stack.enter_context(_opened(study, proposals, evaluator.objectives))
        _agree(held, {**_facts(evaluator, name_of(sampler), compute), **study.facts})
        peers = Peers(held) if study.shared else None
        if peers is not None:
            stack.enter_context(peers.heartbeat())
        proposer, limits = Proposer(evaluator.space), evaluator.budget
        yield Driver(held, proposer, executor, limits, evaluator.objectives, peers)


def _drive(
    driver: Driver, plan: list[Params] | None, n_trials: int, callbacks: Sequence[Callback]
) -> None:
    """Continue what is there; then evaluate a whole plan, or what the sampler proposes."""

    def report(progress: SearchProgress) -> None:
        for callback in callbacks:
            callback(progress)

    driver.resume()
    try:
        if plan is None:
            driver.sample(n_trials, report)
        else:
            driver.visit(plan, report)
    finally:
        if driver.peers is not None:
            driver.leave()


def _write_settings(study: StudySettings, held: optuna.Study, named: Mapping[str, Any]) -> None:
    """Write what is searched, and where the trials are, into the folder of the results."""
    if study.results is not None:
        config = {**named, **held.user_attrs["config"]}
        database = masked(str(study.storage)) if study.shared else None
        write_run(study.results, config, study={"storage": database, "name": study.name})


def _write_result(study: StudySettings, found: SearchResult, compute: Compute) -> None:
    """Write `found.json`, unless the caller does."""
    if study.results is not None and study.record:
        timing = compute.latency.facts if isinstance(compute.latency, Setting) else None
        result = {**found.as_dict(), "latency_setting": timing, "like": None}
        files.write_json(study.results / FOUND, result)


def named_facts(space: Build, data: object) -> dict[str, Any]:
    """Return the names and sizes that a space and a data set know of themselves."""
    facts: dict[str, Any] = {}
    if isinstance(data, Dataset):
        facts |= {"data": data.name, **data.image_facts, "batch_size": BATCH}
    return {**facts, **space.facts} if isinstance(space, NamedSpace) else facts


def _facts(evaluator: Evaluator, sampler: str, compute: Compute) -> dict[str, Any]:
    """Return what a resumed study must share."""
    how, batches = evaluator.scoring, evaluator.batches
    kind = device_kind(compute.places(batches[0].images.device))
    return {
        "init": how.init,
        "seed": how.seed,
        "proxy": name_of(how.proxy),
        "trained_teacher": how.trained_teacher,
        "batches": [list(batch.images.shape) for batch in batches],
        "sampler": sampler,
        "budget": asdict(evaluator.budget),
        "objectives": list(evaluator.objectives),
        **({} if kind == CPU else {"device": kind}),
    }


@contextlib.contextmanager
def _opened(
    study: StudySettings, sampler: optuna.samplers.BaseSampler, objectives: Sequence[str]
) -> Iterator[optuna.Study]:
    """Open the study; a run folder is locked meanwhile."""
    lock = contextlib.nullcontext() if study.folder is None else alone(study.folder)
    directions: list[Literal["maximize", "minimize"]] = [
        "maximize" if objective == "score" else "minimize" for objective in objectives
    ]
    resume = study.resume or study.shared
    with lock, opened(study.storage) as place:
        yield open_study(place, study.name, sampler, resume=resume, directions=directions)


def check_objectives(names: Sequence[str]) -> None:
    """Refuse objectives that are unknown or do not go together.

    Raises:
        UserError: They are not score and costs, each once.
    """
    for name in names:
        if name != "score" and name not in COSTS:
            raise unknown("objective", name, ["score", *COSTS])
    if "score" not in names or len(set(names)) < len(names):
        raise UserError("the objectives must be score and costs, each once, as score,latency")


def _sampler(objectives: Sequence[str], sampler: SamplerLike | None) -> SamplerLike:
    """Return the sampler; refuse one that does not go with the objectives."""
    check_objectives(objectives)
    several = len(objectives) > 1
    if several and sampler == "evolution":
        raise UserError("evolution has one objective; for several take nsga2, tpe or random")
    return rooted(sampler or ("nsga2" if several else "evolution"))


def _agree(study: optuna.Study, facts: Mapping[str, Any]) -> None:
    """Store the facts of a new study; refuse to resume one that differs in them."""
    before = study.user_attrs.get("config")
    if before is None:
        if study.get_trials(deepcopy=False) and "config" not in study.user_attrs:
            raise UserError(f"the study {study.study_name!r} there is of something else")
        study.set_user_attr("config", plain(facts))
        name_metrics(study, facts["objectives"])
        return
    if not isinstance(before, dict):
        raise UserError(f"the study {study.study_name!r} was not written by a search")
    require_same(before, facts, "the search begun before")
