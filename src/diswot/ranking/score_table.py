"""Scores every architecture of a table, in one process or several, and keeps what is done."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from diswot.errors import UserError
from diswot.executors.inline import Inline
from diswot.executors.processes import process_pool
from diswot.executors.protocol import Executor
from diswot.proxies.registry import Proxy, get_proxy
from diswot.proxies.scorer import NotScored, Scorer, standard_error
from diswot.spaces.registry import Params, build_network
from diswot.spaces.validation import Build
from diswot.utils import jsonl

TableScorer = tuple[Scorer, Build]
OnRow = Callable[[int, int], None]
RowTask = tuple[Params, list[str]]


@dataclass(frozen=True)
class Scores:
    """The scores of one architecture.

    Attributes:
        values: By proxy, one number a repeat; minus infinity is the lowest score, NaN is none.
        reasons: By proxy, why a value is not finite.
        seconds: Duration of scoring, building and initialising included.
    """

    values: dict[str, list[float]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def mean(self, proxy: str) -> float:
        """Return the mean over repeats: NaN if one is NaN or plus infinity."""
        values = self.values.get(proxy, [math.nan])
        return fmean(values) if all(value < math.inf for value in values) else math.nan

    def error(self, proxy: str) -> float:
        """Return the standard error of the mean: NaN of one repeat, or if one is not finite."""
        values = self.values.get(proxy, [])
        found = standard_error(values) if all(map(math.isfinite, values)) else None
        return math.nan if found is None else found

    def __or__(self, other: Scores) -> Scores:
        return Scores(
            {**self.values, **other.values},
            {**self.reasons, **other.reasons},
            self.seconds + other.seconds,
        )


def score_table(
    make: Callable[[], TableScorer],
    architectures: Mapping[str, Params],
    proxies: Sequence[str],
    *,
    keep: Path | None = None,
    workers: int = 1,
    others: Sequence[Callable[[], TableScorer]] = (),
    on_row: OnRow = lambda done, total: None,
) -> dict[str, Scores]:
    """Score architectures, each with all proxies in one go.

    An architecture or a proxy that fails has no score but a reason; so has an architecture that
    kills its worker process.

    Args:
        make: Returns the scorer and the space. Each worker process calls it, so it must be
            picklable if there are several.
        architectures: Parameters of the space by name.
        proxies: Names of proxies, as `get_proxy` takes them.
        keep: File of one JSON line a scored architecture, written after each. What it holds is not
            scored again.
        workers: Number of processes; the threads of the processor are split between them.
        others: What workers call after the first in place of `make`, as on other devices.
        on_row: Called with the number of architectures that are done, and of all.

    Raises:
        UserError: `keep` holds something else.
        SearchFailed: Processes cannot start.
    """
    found = read_kept(keep) if keep is not None else {}
    missing = {
        name: [p for p in proxies if p not in found.get(name, Scores()).values]
        for name in architectures
    }
    tasks = {name: (architectures[name], some) for name, some in missing.items() if some}
    done = len(architectures) - len(tasks)
    on_row(done, len(architectures))
    if tasks:
        with _executor([make, *others], min(workers, len(tasks))) as executor:
            for name, scores in _scored(executor, tasks):
                found[name] = found.get(name, Scores()) | scores
                if keep is not None:
                    _append(keep, name, scores)
                done += 1
                on_row(done, len(architectures))
    return {name: found[name] for name in architectures}


def read_kept(path: Path) -> dict[str, Scores]:
    """Read the scores that an earlier run kept in a file; a torn last line is dropped.

    Raises:
        UserError: The file is not one of these.
    """
    found: dict[str, Scores] = {}
    for number, row in enumerate(jsonl.read_lines(path), 1):
        try:
            name, scores = _parse(row)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{path}, line {number}, is not what diswot writes") from error
        found[name] = found.get(name, Scores()) | scores
    return found


def _parse(row: Any) -> tuple[str, Scores]:
    values = {proxy: [float(v) for v in several] for proxy, several in row["values"].items()}
    return str(row["name"]), Scores(values, dict(row["reasons"]), float(row["seconds"]))


def _append(path: Path, name: str, scores: Scores) -> None:
    row = {"name": name, **asdict(scores)}
    row["values"] = {
        proxy: [v if math.isfinite(v) else str(v) for v in values]
        for proxy, values in scores.values.items()
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        jsonl.append(path, [row])
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def _executor(
    makes: Sequence[Callable[[], TableScorer]], workers: int
) -> AbstractContextManager[Executor]:
    """Start what scores: this process for one worker, or processes."""
    if workers == 1:
        return nullcontext(Inline(_scoring(makes[0])))
    threads = max(1, torch.get_num_threads() // workers)
    return process_pool([partial(_scoring, make) for make in makes], workers, threads=threads)


def _scoring(make: Callable[[], TableScorer]) -> Callable[[RowTask], Scores]:
    """Return the function that does an executor's tasks."""
    scorer, build = make()
    row = cache(get_proxy)  # a user may edit a file meanwhile
    return lambda task: score_one(scorer, build, task[0], {name: row(name) for name in task[1]})


def _scored(executor: Executor, tasks: Mapping[str, RowTask]) -> Iterator[tuple[str, Scores]]:
    """Yield the scores of each task when it ends."""
    waiting, running = deque(tasks), 0
    while waiting or running:
        while waiting and executor.room:
            name = waiting.popleft()
            executor.submit(name, tasks[name])
            running += 1
        for result in executor.wait():
            running -= 1
            name = str(result.key)
            _, proxies = tasks[name]
            none = {proxy: [math.nan] for proxy in proxies}
            yield name, result.value or Scores(none, dict.fromkeys(proxies, result.reason))


def score_one(
    scorer: Scorer, build: Build, params: Params, proxies: Sequence[str] | Mapping[str, Proxy]
) -> Scores:
    """Score one architecture; a proxy that fails is NaN, with the reason."""
    start = time.perf_counter()
    make = partial(build_network, build, params)
    try:
        outcomes: dict[str, list[Any]] = {**scorer.outcomes(scorer.students(make), proxies)}
    except (Exception, SystemExit) as error:  # a user's code may raise anything
        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        outcomes = {name: [NotScored(name, math.nan, reason)] for name in proxies}
    values: dict[str, list[float]] = {}
    reasons: dict[str, str] = {}
    for name, several in outcomes.items():
        failed = [each for each in several if isinstance(each, NotScored)]
        values[name] = [float(e.value if isinstance(e, NotScored) else e) for e in several]
        if failed:
            reasons[name] = " ".join(str(failed[0]).split())
    return Scores(values, reasons, time.perf_counter() - start)
