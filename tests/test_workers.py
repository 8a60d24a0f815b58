"""Worker processes: what they return, what becomes of those that die, hang or cannot start."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
import toyspaces
from optuna.trial import BaseTrial, FrozenTrial
from tasks import broken, dying, made, seldom, unmade, work
from torch import nn

from diswot import spaces
from diswot.budget import Budget
from diswot.errors import SearchFailed, UserError
from diswot.evolution import key
from diswot.proxies import scorer
from diswot.search import Found, search
from diswot.storage import open_storage
from diswot.workers import Packed, Pipes, Pool

# Tasks


def pool(size: int = 1, timeout: float | None = None, make: Any = made) -> Pool:
    return Pool(Pipes([Packed.pack(make, work)]), size, timeout)


def results(crew: Pool, tasks: dict[str, Any], answer: Any = None) -> dict[Any, Any]:
    """Of all tasks, in the order of their names; `(kind, reason)` of one that failed."""
    for name, task in tasks.items():
        crew.put(name, task)
    found: dict[Any, Any] = {}
    while crew.busy:
        for outcome in crew.wait(answer or (lambda key, question: None)):
            failed = (outcome.kind, outcome.reason)
            found[outcome.key] = failed if outcome.kind else outcome.result
    return {name: found[name] for name in tasks}


@pytest.fixture(scope="module")
def two() -> Iterator[Pool]:
    with pool(2) as crew:
        yield crew


def test_tasks_are_done_and_questions_answered(two: Pool) -> None:
    tasks = {str(i): ("add", i, 1) for i in range(9)} | {"asking": ("ask", 1, "b")}

    found = results(two, tasks, lambda key, question: (key, question))

    assert found == {
        **{str(i): i + 1 for i in range(9)},
        "asking": [("asking", 1), ("asking", "b")],
    }


def test_each_worker_makes_its_own_once(two: Pool) -> None:
    found = results(two, {str(i): ("who",) for i in range(20)})

    assert 1 <= len(set(found.values())) <= 2 and os.getpid() not in found.values()


def test_task_whose_worker_is_killed_is_tried_again(two: Pool, tmp_path: Path) -> None:
    tasks = {"a": ("kill once", str(tmp_path / "mark")), "b": ("add", 1, 2)}

    assert results(two, tasks) == {"a": "survived", "b": 3}


def test_worker_that_is_killed_while_idle_is_replaced(two: Pool) -> None:
    (before,) = set(results(two, {"a": ("who",)}).values())
    os.kill(before, signal.SIGKILL)

    found = results(two, {str(i): ("add", i) for i in range(6)})

    assert found == {str(i): i for i in range(6)}


def test_task_that_kills_its_worker_fails_and_the_others_go_on(two: Pool) -> None:
    tasks = {"a": ("kill",), "b": ("add", 1, 2), "c": ("exit",), "d": ("add", 3, 4)}

    assert results(two, tasks) == {
        "a": ("killed", "its process died: SIGKILL"),
        "b": 3,
        "c": ("killed", "its process died: exit status 3"),
        "d": 7,
    }


def test_task_that_hangs_fails_and_the_others_go_on() -> None:
    with pool(1, timeout=0.5) as crew:
        found = results(crew, {"a": ("sleep",), "b": ("add", 1, 2)})

    assert found == {"a": ("timeout", "took longer than 0.5 s"), "b": 3}


def test_patience_is_longer() -> None:
    with pool(1, timeout=0.2) as crew:
        crew.put("a", ("sleep",), patience=3)
        start, outcomes = time.monotonic(), []
        while not outcomes:
            outcomes = crew.wait(lambda key, question: None)

    assert outcomes[0].kind == "timeout" and time.monotonic() - start >= 0.6


def test_waiting_may_end_without_an_outcome(two: Pool) -> None:
    assert two.wait(lambda key, question: None, 0.01) == []


def test_clock_that_jumps_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    jumps = iter(range(0, 10**9, 10**6))
    monkeypatch.setattr(time, "time", lambda: 1e9 + next(jumps))
    with pool(1, timeout=30) as crew:
        assert results(crew, {"a": ("add", 1), "b": ("add", 2)}) == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (unmade, UserError, "^no such teacher$"),
        (broken, SearchFailed, "^a worker failed: RuntimeError: no such teacher$"),
        (dying, SearchFailed, r"a worker process ended too early \(exit status 9\)"),
    ],
)
def test_workers_that_cannot_start(make: Any, error: type[Exception], message: str) -> None:
    threads = threading.active_count()
    with pytest.raises(error, match=message), pool(1, make=make):
        pass

    assert threading.active_count() == threads


def test_worker_that_was_ready_before_is_started_more_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = tmp_path / "starts"
    starts.mkdir()
    task = {"a": ("kill once", str(tmp_path / "mark"))}
    with pool(1, make=partial(seldom, str(starts))) as crew:
        assert results(crew, task) == {"a": "survived"}
    assert len(list(starts.iterdir())) == 6

    monkeypatch.setattr("diswot.workers.RESTARTS", 2)
    for path in (*starts.iterdir(), tmp_path / "mark"):
        path.unlink()
    with (
        pytest.raises(SearchFailed, match=r"ended too early \(exit status 9\)"),
        pool(1, make=partial(seldom, str(starts))) as crew,
    ):
        results(crew, task)
    assert len(list(starts.iterdir())) == 3


def test_mistake_of_ours_is_raised() -> None:
    with (
        pytest.raises(SearchFailed, match="a worker failed: RuntimeError: a mistake of ours"),
        pool(1) as crew,
    ):
        results(crew, {"a": ("raise",)})


def test_what_cannot_be_pickled_is_told() -> None:
    with pytest.raises(UserError, match="that can be pickled, as functions of a module can") as it:
        Packed.pack(lambda: 3, work)
    assert "\n" not in str(it.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "at least 1, not 0"),
        ({"timeout": 0.0}, "above zero"),
        ({"timeout": math.nan}, "above zero"),
    ],
)
def test_numbers_that_are_wrong(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        pool(**options)


DRIVER = """
import time
from tasks import made, work
from diswot.workers import Packed, Pipes, Pool
with Pool(Pipes([Packed.pack(made, work)]), 2) as crew:
    crew.put("a", ("who",))
    crew.put("b", ("sleep",))
    while not (outcomes := crew.wait(lambda key, question: None)):
        pass
    workers = [worker.handle.process.pid for worker in crew._workers]
    print(*workers, flush=True)
    time.sleep(60)
"""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_workers_idle_or_busy_die_with_their_driver() -> None:
    folders = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = {**os.environ, "PYTHONPATH": folders}
    command = [sys.executable, "-c", DRIVER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as driver:
        assert driver.stdout is not None
        pids = [int(pid) for pid in driver.stdout.readline().split()]
        assert len(pids) == 2 and all(map(alive, pids))
        driver.kill()

    limit = time.monotonic() + 20
    while any(map(alive, pids)) and time.monotonic() < limit:
        time.sleep(0.05)
    assert not any(map(alive, pids))


# Searches


def run(space: spaces.Build = toyspaces.tiny, **options: Any) -> Found:
    options = {"proxy": "diswot", "workers": 2, "threads": 1, **options}
    return search(toyspaces.teacher(), space, options.pop("batches", toyspaces.batch()), **options)


def trials(where: Path | str) -> list[FrozenTrial]:
    return optuna.load_study(study_name="diswot", storage=open_storage(where)).trials


def told(where: Path | str) -> list[tuple[Any, ...]]:
    """Of each trial all but its times, and which of twins was scored: that is chance."""
    return [(t.number, t.params, t.values, t.state) for t in trials(where)]


@pytest.mark.parametrize(
    "options",
    [{"trials": 30, "sampler": "random"}, pytest.param({"trials": 36}, marks=pytest.mark.slow)],
)
def test_workers_find_what_one_process_finds(options: dict[str, Any], tmp_path: Path) -> None:
    """The same trials with the same scores, to the last bit; random ones repeat architectures."""
    options |= {"budget": Budget(max_params=450), "seed": 3}
    places = {workers: tmp_path / str(workers) for workers in (None, 2)}
    founds = [run(workers=count, storage=place, **options) for count, place in places.items()]

    one, two = map(told, places.values())
    assert one == two
    assert [replace(s, trial=0) for s in founds[0].top] == [
        replace(s, trial=0) for s in founds[1].top
    ]
    assert founds[0].reused == founds[1].reused
    assert founds[1].rejected > 0 and (founds[1].reused > 0) == ("sampler" in options)


@pytest.mark.slow
def test_evolution_scores_nothing_twice(tmp_path: Path) -> None:
    found = run(trials=35, storage=tmp_path)

    scored = [t for t in trials(tmp_path) if "scores" in t.user_attrs["end"]]
    assert found.trials == 35 == found.scored + found.reused
    assert len({key(t.params) for t in scored}) == len(scored) == found.scored
    fixed = scorer(toyspaces.teacher(), [toyspaces.batch()])
    for trial in scored:
        build = partial(spaces.network, toyspaces.tiny, trial.params)
        assert fixed.score_build(build, ["diswot"])["diswot"] == [trial.value]


@pytest.mark.slow
def test_dynamic_space_is_enumerated_in_a_worker() -> None:
    found = run(toyspaces.branching, trials=14)

    assert found.exhaustive and found.scored == 14


def deadly(trial: BaseTrial) -> nn.Module:
    if trial.suggest_int("number", 0, 2) >= 0:
        os._exit(7)
    return toyspaces.Marked(0)


@pytest.mark.slow
def test_space_that_kills_whatever_builds_it() -> None:
    reason = "3 failed, such as: killed: its process died: exit status 7"
    with pytest.raises(SearchFailed, match=reason):
        run(deadly, trials=3, sampler="random", workers=1)


@pytest.mark.slow
def test_teacher_that_cannot_take_the_images_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the teacher cannot take images"):
        search(
            nn.Linear(3, 4), toyspaces.tiny, toyspaces.batch(), workers=1, storage=tmp_path / "a"
        )
    assert not (tmp_path / "a").exists()


def test_space_that_cannot_be_pickled_is_told() -> None:
    with pytest.raises(UserError, match="workers need a teacher and a space that can be pickled"):
        run(lambda trial: toyspaces.tiny(trial))


@pytest.mark.slow
def test_latency_is_measured_by_the_driver() -> None:
    asked: list[dict[str, Any]] = []

    def latency(params: dict[str, Any]) -> float:
        asked.append(params)
        return 0.001 * params["kernel"]

    found = run(trials=36, latency=latency, budget=Budget(max_latency=0.002))

    assert found.scored == 18 and len(asked) == 36
    assert found.best.latency == 0.001
