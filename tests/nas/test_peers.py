"""Several processes in one study: in a database, at the same time, killed and resumed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import toyspaces
from optuna.trial import FrozenTrial, TrialState
from postgres import postgres
from searching import search

from diswot.errors import UserError
from diswot.nas import peers as module
from diswot.nas.aging_evolution import digest
from diswot.nas.peers import OWNER, Peers
from diswot.nas.result import SearchResult
from diswot.proxies.scorer import scorer
from diswot.spaces.registry import build_network
from diswot.storage.study import opened

assert toyspaces  # sets Optuna's verbosity

SCRIPT = """
import sys, time, torch, toyspaces
torch.set_num_threads(1)
from diswot.nas import peers
from searching import search
peers.HEARTBEAT, peers.GRACE = 0.2, {grace}
def slow(trial):
    model = toyspaces.tiny(trial)
    time.sleep({pause})
    return model
print("begun", flush=True)
found = search(toyspaces.teacher(), slow, toyspaces.batch(), proxy="diswot", trials={trials},
               sampler={sampler!r}, seed=4, storage=sys.argv[1])
print(found.trials, found.scored, found.raced, flush=True)
"""


def process(
    url: str, trials: int, *, sampler: str = "random", pause: float = 0.05, grace: float = 5
) -> Any:
    folders = [str(Path(toyspaces.__file__).parent), *sys.path]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(folders)}
    script = SCRIPT.format(trials=trials, sampler=sampler, pause=pause, grace=5)
    command = [sys.executable, "-c", script, url]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def run(url: str, **options: Any) -> SearchResult:
    options = {"proxy": "diswot", "seed": 4, **options}
    return search(toyspaces.teacher(), toyspaces.tiny, toyspaces.batch(), storage=url, **options)


def trials(url: str) -> list[FrozenTrial]:
    with opened(url) as storage:
        return optuna.load_study(study_name="diswot", storage=storage).trials


def hold(url: str, count: int) -> None:
    """To the contract: so many trials, none open, nothing scored twice, each with its score."""
    every = trials(url)
    ended = [t for t in every if "end" in t.user_attrs]
    assert len(ended) == count and all(t.state.is_finished() for t in every)
    scored = Counter(digest(t.params) for t in ended if "scores" in t.user_attrs["end"])
    assert set(scored.values()) == {1}
    fixed = scorer(toyspaces.teacher(), [toyspaces.batch()], seed=4)
    for trial in ended:
        build = lambda trial=trial: build_network(toyspaces.tiny, trial.params)  # noqa: E731
        assert fixed.score(fixed.students(build), ["diswot"])["diswot"] == [trial.value]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT", 0.1)
    monkeypatch.setattr(module, "GRACE", 1.0)
    monkeypatch.setattr("diswot.nas.driver.PAUSE", 0.05)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/studies.db"


def test_a_search_in_a_database_is_joined_and_done_once(url: str) -> None:
    first = run(url, trials=6)
    again = run(url, trials=6)

    assert again.top == first.top and again.trials == 6 and len(trials(url)) == 6
    with pytest.raises(UserError, match="has seed = 4, not 5"):
        run(url, trials=6, seed=5)


@pytest.mark.parametrize("asked", [5, pytest.param(36, marks=pytest.mark.slow)])
def test_trials_that_a_dead_process_left_are_given_up(asked: int, url: str, quick: None) -> None:
    run(url, trials=3)
    study = optuna.load_study(study_name="diswot", storage=url)
    for owner in ("dead", None):
        trial = study.ask()
        if owner:
            trial.set_user_attr(OWNER, owner)

    found = run(url, trials=asked)

    assert found.trials == asked
    hold(url, asked)
    assert [t.number for t in trials(url) if t.state == TrialState.FAIL] == [3, 4]


def test_trial_of_the_living_is_left_alone(url: str, quick: None) -> None:
    run(url, trials=3)
    study = optuna.load_study(study_name="diswot", storage=url)
    me, they = Peers(study), Peers(study)
    trial = study.ask()
    trial.set_user_attr(OWNER, they.name)

    with they.heartbeat():
        limit = time.monotonic() + 1.5
        while time.monotonic() < limit:
            assert me.look()[1] == []
            time.sleep(0.1)
        assert list(me.running) == [trial.number]
    limit = time.monotonic() + 20
    while not (lost := me.look()[1]) and time.monotonic() < limit:
        time.sleep(0.1)
    assert [t.number for t in lost] == [trial.number] and not me.running


def test_a_trial_without_an_owner_yet_has_a_clock_of_its_own(
    url: str, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GRACE", 0.3)
    study = optuna.create_study(study_name="diswot", storage=url)
    me = Peers(study)
    first = study.ask()
    assert me.look()[1] == []
    study.tell(first, 1.0)
    time.sleep(0.4)
    second = study.ask()
    assert me.look()[1] == [] and list(me.running) == [second.number]
    time.sleep(0.4)
    assert [t.number for t in me.look()[1]] == [second.number]


def test_a_process_that_was_idle_is_alive(
    url: str, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GRACE", 0.5)
    study = optuna.create_study(study_name="diswot", storage=url)
    me, busy, idle = Peers(study), Peers(study), Peers(study)
    study.ask().set_user_attr(OWNER, busy.name)
    first = study.ask()
    first.set_user_attr(OWNER, idle.name)
    with busy.heartbeat(), idle.heartbeat():
        assert me.look()[1] == []
        study.tell(first, 1.0)
        limit = time.monotonic() + 1
        while time.monotonic() < limit:
            assert me.look()[1] == []
            time.sleep(0.05)
        monkeypatch.setattr(module, "HEARTBEAT", 60.0)  # the next look reads no heartbeat
        study.ask().set_user_attr(OWNER, idle.name)
        assert me.look()[1] == [] and len(me.running) == 2


def test_a_trial_given_up_before_it_is_claimed_does_not_end_the_search(
    url: str, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, given_up = Peers.claim, []

    def late(self: Peers, trial: optuna.Trial) -> None:
        if not given_up:
            given_up.append(trial.number)
            self.study.tell(trial.number, state=TrialState.FAIL)
        claim(self, trial)

    monkeypatch.setattr(Peers, "claim", late)
    assert run(url, trials=3).trials == 3
    hold(url, 3)
    assert [t.number for t in trials(url) if t.state == TrialState.FAIL] == given_up


def test_clock_that_jumps_kills_nobody(url: str, quick: None, monkeypatch: Any) -> None:
    jumps = iter(range(0, 10**9, 10**5))
    monkeypatch.setattr(time, "time", lambda: 1e9 + next(jumps))
    run(url, trials=3)
    study = optuna.load_study(study_name="diswot", storage=url)
    they, me = Peers(study), Peers(study)
    study.ask().set_user_attr(OWNER, they.name)
    with they.heartbeat():
        for _ in range(5):
            assert me.look()[1] == []
            time.sleep(0.05)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres() as address:
        yield address


@pytest.fixture
def database(server: str) -> Callable[[str], str]:
    """A new database on the server."""
    import psycopg

    def create(name: str) -> str:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return server.replace("/postgres", f"/{name}")

    return create


@pytest.mark.slow
@pytest.mark.parametrize(("sampler", "asked"), [("random", 30), ("evolution", 30), ("random", 36)])
def test_three_processes_join_one_study(
    sampler: str, asked: int, database: Callable[[str], str]
) -> None:
    url = database(f"three_{sampler}_{asked}")

    running = [process(url, asked, sampler=sampler) for _ in range(3)]

    printed = {p.communicate()[0].split("\n")[1] for p in running}
    assert all(p.returncode == 0 for p in running)
    assert len(printed) == 1
    hold(url, asked)
    if sampler == "random" and asked == 30:
        alone = database("alone")
        run(alone, trials=30, sampler="random")
        values = [
            sorted((sorted(t.params.items()), t.value) for t in trials(u) if "end" in t.user_attrs)
            for u in (url, alone)
        ]
        assert values[0] == values[1]


@pytest.mark.slow
def test_one_process_is_killed_and_the_other_takes_over(database: Callable[[str], str]) -> None:
    url = database("killed")
    one, two = (process(url, 36, pause=0.3) for _ in range(2))
    limit = time.monotonic() + 120
    while time.monotonic() < limit:
        time.sleep(0.5)
        try:
            if len([t for t in trials(url) if "end" in t.user_attrs]) >= 6:
                break
        except Exception:
            continue
    one.send_signal(signal.SIGKILL)

    printed = two.communicate(timeout=240)[0].split("\n")[1]
    one.communicate()

    assert one.returncode == -signal.SIGKILL and printed.split()[0] == "36"
    hold(url, 36)


def test_postgres_keeps_and_is_joined(database: Callable[[str], str]) -> None:
    url = database("simple")
    found = run(url, trials=8)

    assert run(url, trials=8).top == found.top
    hold(url, 8)
