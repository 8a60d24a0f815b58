"""Scores every architecture of a table, in one process or several, and keeps what is done."""

from __future__ import annotations

import json
import math
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from diswot.errors import UserError
from diswot.executors.packed import Ask, Packed
from diswot.executors.pool import Pool
from diswot.executors.processes import Pipes
from diswot.proxies.registry import get_proxy
from diswot.proxies.scorer import NotScored, Scorer, standard_error
from diswot.spaces.registry import Params, build_network
from diswot.spaces.validation import Build

Setting = tuple[Scorer, Build]
OnRow = Callable[[int, int], None]


@dataclass(frozen=True)
class Scores:
    """What was found about one architecture.

    Attributes:
        values: By proxy, one number a repeat; minus infinity is the lowest score, NaN is none.
        reasons: By proxy, why a value is not finite.
        seconds: That scoring took, building and initialising included.
    """

    values: dict[str, list[float]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def mean(self, proxy: str) -> float:
        """Mean over repeats: NaN if one is NaN or plus infinity; minus infinity is the lowest."""
        values = self.values.get(proxy, [math.nan])
        return fmean(values) if all(value < math.inf for value in values) else math.nan

    def error(self, proxy: str) -> float | None:
        """Standard error of that mean; None of a single repeat, or where one is not finite."""
        values = self.values.get(proxy, [])
        return standard_error(values) if all(map(math.isfinite, values)) else None

    def __or__(self, other: Scores) -> Scores:
        return Scores(
            {**self.values, **other.values},
            {**self.reasons, **other.reasons},
            self.seconds + other.seconds,
        )


def score_table(
    make: Callable[[], Setting],
    architectures: Mapping[str, Params],
    proxies: Sequence[str],
    *,
    keep: Path | None = None,
    workers: int = 1,
    others: Sequence[Callable[[], Setting]] = (),
    on_row: OnRow | None = None,
) -> dict[str, Scores]:
    """Score architectures, each with all proxies in one go.

    An architecture or a proxy that fails is missing, with the reason; so is an architecture that
    kills its process, where there are several. The others go on.

    Args:
        make: Returns the scorer and the space. With several workers each process calls it, so it
            must be possible to pickle it.
        architectures: Parameters of the space by name.
        proxies: Keys of `PROXIES`.
        keep: File of one JSON line a scored architecture, written as it comes. What it holds
            already is not scored again.
        workers: Processes. The processor's threads are split between them.
        others: What workers call after the first, as on other devices; then `make` again.
        on_row: Told how many are done, of how many.

    Raises:
        UserError: A proxy is unknown, or `keep` holds something else.
        SearchFailed: Processes cannot start.
    """
    for name in proxies:
        get_proxy(name)
    if workers < 1:
        raise UserError(f"workers must be at least 1, not {workers}")
    found = read_kept(keep) if keep is not None else {}
    tasks = [
        (name, params, missing)
        for name, params in architectures.items()
        if (missing := [p for p in proxies if p not in found.get(name, Scores()).values])
    ]
    done = len(architectures) - len(tasks)
    _tell(on_row, done, len(architectures))
    with closing(_run([make, *others], tasks, min(workers, len(tasks)))) as results:
        for name, scores in results:
            found[name] = found.get(name, Scores()) | scores
            if keep is not None:
                _append(keep, name, scores)
            done += 1
            _tell(on_row, done, len(architectures))
    return {name: found[name] for name in architectures}


def read_kept(path: Path) -> dict[str, Scores]:
    """What an earlier run left; half a line at the end, where it was killed, is dropped.

    Raises:
        UserError: The file is not one of these.
    """
    found: dict[str, Scores] = {}
    lines = path.read_bytes().split(b"\n") if path.is_file() else []
    for number, line in enumerate(lines[:-1], 1):
        try:
            name, scores = _parse(line)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{path}, line {number}, is not what diswot writes") from error
        found[name] = found.get(name, Scores()) | scores
    return found


def _parse(line: bytes) -> tuple[str, Scores]:
    row = json.loads(line)
    values = {proxy: [float(v) for v in several] for proxy, several in row["values"].items()}
    return str(row["name"]), Scores(values, dict(row["reasons"]), float(row["seconds"]))


def _append(path: Path, name: str, scores: Scores) -> None:
    """Write one line at the end, over half a line that may be there."""
    row = {"name": name, **asdict(scores)}
    row["values"] = {p: [_plain(v) for v in values] for p, values in scores.values.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            file.truncate(_whole(path))
            file.write(json.dumps(row, allow_nan=False).encode() + b"\n")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def _whole(path: Path) -> int:
    """Length of the whole lines of a file."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - 4096)
            file.seek(start)
            if (last := file.read(end - start).rfind(b"\n")) >= 0:
                return start + last + 1
            end = start
    return 0


def _plain(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def _tell(on_row: OnRow | None, done: int, total: int) -> None:
    if on_row is not None:
        on_row(done, total)


Task = tuple[str, Params, list[str]]


def _run(
    makes: Sequence[Callable[[], Setting]], tasks: Sequence[Task], workers: int
) -> Generator[tuple[str, Scores], None, None]:
    """The tasks' results as they come."""
    if workers <= 1:
        setting = makes[0]() if tasks else None
        for name, params, proxies in tasks:
            assert setting is not None
            yield name, score_one(*setting, params, proxies)
        return
    threads = max(1, torch.get_num_threads() // workers)
    with Pool(Pipes([Packed.pack(make, _work) for make in makes], threads), workers) as pool:
        yield from _collect(pool, tasks)


def _collect(pool: Pool, tasks: Sequence[Task]) -> Iterator[tuple[str, Scores]]:
    """Hand out tasks as workers get free."""
    waiting = deque(tasks)
    proxies = {name: several for name, _, several in tasks}
    while waiting or pool.busy:
        while waiting and pool.room:
            name, *task = waiting.popleft()
            pool.put(name, task)
        for outcome in pool.wait(lambda name, question: None):
            name = str(outcome.key)
            yield name, outcome.result or _unscored(proxies[name], outcome.reason)


def _work(setting: Setting, task: tuple[Params, list[str]], ask: Ask) -> Scores:
    return score_one(*setting, *task)


def _unscored(proxies: Sequence[str], reason: str) -> Scores:
    return Scores({name: [math.nan] for name in proxies}, dict.fromkeys(proxies, reason))


def score_one(scorer: Scorer, build: Build, params: Params, proxies: Sequence[str]) -> Scores:
    """Score one architecture; what fails is NaN, with the reason."""
    start = time.perf_counter()
    make = partial(build_network, build, params)
    try:
        outcomes: dict[str, list[Any]] = {**scorer.outcomes(scorer.students(make), proxies)}
    except Exception as error:  # whatever a user's space or network raises is told in one line
        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        outcomes = {name: [NotScored(name, math.nan, reason)] for name in proxies}
    values = {name: [_value(outcome) for outcome in several] for name, several in outcomes.items()}
    reasons = {
        name: next(_line(outcome) for outcome in several if isinstance(outcome, NotScored))
        for name, several in outcomes.items()
        if any(isinstance(outcome, NotScored) for outcome in several)
    }
    return Scores(values, reasons, time.perf_counter() - start)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _value(outcome: float | NotScored) -> float:
    return float(outcome.value if isinstance(outcome, NotScored) else outcome)
