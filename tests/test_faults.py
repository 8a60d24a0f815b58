"""A search that is killed, or whose disk is full, loses no record and can be resumed.

The faults that matter most are fast tests: SIGKILL of a worker and of the driver, a torn journal, a
full disk. A lost Ray node is one of `executors/test_ray`.
"""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
import torch
import toyspaces
from commands import call
from full_disk import full_disk
from optuna.trial import BaseTrial, FrozenTrial
from searching import search
from torch import Tensor, nn

from diswot.errors import UserError
from diswot.executors.pool import TRIES, Pool
from diswot.executors.protocol import TaskResult
from diswot.nas.aging_evolution import digest
from diswot.nas.result import SearchResult
from diswot.proxies.scorer import scorer
from diswot.spaces.registry import build_network
from diswot.spaces.validation import Build
from diswot.storage.run_files import JOURNAL, RUN
from diswot.storage.study import open_storage

HERE = str(Path(__file__).parent)


def run(
    space: Build = toyspaces.tiny, teacher: nn.Module | None = None, **options: Any
) -> SearchResult:
    options = {"proxy": "diswot", "sampler": "random", "seed": 4, **options}
    return search(teacher or toyspaces.teacher(), space, toyspaces.batch(), **options)


def trials(where: Path) -> list[FrozenTrial]:
    return optuna.load_study(study_name="diswot", storage=open_storage(where)).trials


def whole(where: Path, count: int, space: Build, lost: int = 0) -> None:
    """Check that `count` trials ended, each scored as it would be alone; `lost` may have failed.

    Trials that were open when a process ended have no end, and do not count.
    """
    kept = [t for t in trials(where) if "end" in t.user_attrs]
    scored = [t for t in kept if "scores" in t.user_attrs["end"]]
    failed = [t.user_attrs["end"] for t in kept if "failed" in t.user_attrs["end"]]
    assert len(kept) == count
    assert all(trial.state.is_finished() for trial in trials(where))
    assert len({digest(trial.params) for trial in scored}) == len(scored)
    assert len(failed) <= lost and {end["kind"] for end in failed} <= {"killed"}
    fixed = scorer(toyspaces.teacher(), [toyspaces.batch()], seed=4)
    for trial in scored:
        build = partial(build_network, space, trial.params)
        assert fixed.score(fixed.students(build), ["diswot"])["diswot"] == [trial.value]


# Two searches in one folder


def test_second_search_in_a_run_folder_is_refused(tmp_path: Path) -> None:
    refused: list[str] = []

    def intrude(progress: object) -> None:
        with pytest.raises(UserError, match="a search is under way in") as caught:
            run(trials=5, storage=tmp_path, resume=len(refused) % 2 == 0)
        refused.append(str(caught.value))

    assert run(trials=5, storage=tmp_path, callbacks=[intrude]).trials == 5
    assert len(refused) == 6 and all(str(tmp_path) in text for text in refused)
    whole(tmp_path, 5, toyspaces.tiny)


ALONE = """
import sys, time
from pathlib import Path
from diswot.storage.study import alone
with alone(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_folder_of_a_dead_search_is_free(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ALONE, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match="a search is under way in"):
            run(trials=3, storage=tmp_path)

        holder.kill()
        holder.wait()

        assert run(trials=3, storage=tmp_path).trials == 3


# A journal that ends anywhere


def test_journal_cut_anywhere_is_gone_on_with(tmp_path: Path) -> None:
    """Killed at any moment, the last line torn or not, as often as one likes."""
    moments = random.Random(int(time.time()))
    full = run(trials=12, storage=tmp_path / "full")
    text = (tmp_path / "full" / JOURNAL).read_bytes()
    for number in range(12):
        place = tmp_path / str(number)
        place.mkdir()
        cut = text[: moments.randrange(len(text))]
        (place / JOURNAL).write_bytes(cut)

        found = run(trials=12, storage=place, resume=True)

        assert found.trials == 12 and found.failed == 0, cut
        assert (place / JOURNAL).read_bytes().startswith(cut[: cut.rfind(b"\n") + 1])
        whole(place, 12, toyspaces.tiny)
    assert full.trials == 12


# A full disk


def fill(place: Path, left: int, **options: Any) -> bytes:
    """A search that finds the disk full; returns what was recorded."""
    with full_disk(left), pytest.raises((OSError, UserError), match="arge"):
        run(trials=12, storage=place, **options)
    recorded = (place / JOURNAL).read_bytes()
    assert len(recorded) == left
    return recorded[: recorded.rindex(b"\n") + 1]


def test_full_disk_before_the_first_trial(tmp_path: Path) -> None:
    """There is no room for run.json, which is written before the trials."""
    with full_disk(700), pytest.raises((OSError, UserError), match="arge"):
        run(trials=12, storage=tmp_path)
    assert (tmp_path / JOURNAL).read_bytes().endswith(b"\n") and not (tmp_path / RUN).exists()
    assert run(trials=12, storage=tmp_path, resume=True).trials == 12
    assert (tmp_path / RUN).exists()


@pytest.mark.parametrize("left", [1300, 1501, 1750, 3002, 4999, 7000])
def test_full_disk_loses_nothing(left: int, tmp_path: Path) -> None:
    kept = fill(tmp_path, left)

    found = run(trials=12, storage=tmp_path, resume=True)

    assert found.trials == 12 and found.failed == 0
    assert (tmp_path / JOURNAL).read_bytes().startswith(kept)
    whole(tmp_path, 12, toyspaces.tiny)


@pytest.mark.slow
def test_full_disk_with_workers(tmp_path: Path) -> None:
    kept = fill(tmp_path, 5000, workers=2, threads=1)

    found = run(trials=12, storage=tmp_path, resume=True, workers=2, threads=1)

    assert found.trials == 12 and found.failed == 0
    assert (tmp_path / JOURNAL).read_bytes().startswith(kept)
    whole(tmp_path, 12, toyspaces.tiny)


ROOM = """
mount -t tmpfs -o size=40k none room || exit 77
"$@"
echo "status $?" >&2
mount -o remount,size=9m room
"$@" --resume --json
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["", "--workers 2"])
def test_disk_that_is_full_indeed(workers: str, tmp_path: Path) -> None:
    """A file system of 40 KiB, of this test alone, which is made larger for the second search."""
    (tmp_path / "room").mkdir()
    line = "search --teacher resnet20 --classes 10 --batch-size 4 --image-size 8 --proxy params"
    line += f" --sampler random --trials 40 --quiet --out room/run {workers}"
    inner = ["sh", "-c", ROOM, "sh", sys.executable, "-m", "diswot", *line.split()]
    try:
        ran = subprocess.run(
            ["unshare", "-rm", *inner], cwd=tmp_path, capture_output=True, text=True
        )
    except OSError:
        pytest.skip("no unshare to mount a small disk with")
    if "status" not in ran.stderr:
        pytest.skip(f"a small disk cannot be mounted: {ran.stderr}")

    message, status, *rest = ran.stderr.splitlines()

    assert message.startswith("diswot: No space left on device") and status == "status 1"
    assert ran.returncode == 0 and rest == []
    found = json.loads(ran.stdout)
    assert found["trials"] == 40 and found["failed"] == 0


# Processes that are killed


def slow(trial: BaseTrial) -> nn.Module:
    """Take a while; as `tiny`, of many more."""
    time.sleep(0.05)  # in the driver, and in a worker
    trial.suggest_int("nothing", 0, 10**6)
    return toyspaces.tiny(trial)


DRIVER = """
import sys
from test_faults import run, slow
run(slow, trials=30, workers=int(sys.argv[2]), threads=1, storage=sys.argv[1], resume=True)
"""


def lines(place: Path) -> int:
    path = place / JOURNAL
    return path.read_bytes().count(b"\n") if path.exists() else 0


def gone(processes: list[psutil.Process]) -> bool:
    return not psutil.wait_procs(processes, timeout=20)[1]


def kill_driver(place: Path, after: int, count: int = 2) -> None:
    """Search in another process, and kill it when its journal has so many lines more."""
    command = [sys.executable, "-c", DRIVER, str(place), str(count)]
    folders = os.pathsep.join([HERE, *sys.path])
    driver = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": folders})
    limit = lines(place) + after
    while driver.poll() is None and lines(place) < limit:
        time.sleep(random.random() / 50)
    workers = psutil.Process(driver.pid).children()
    driver.send_signal(signal.SIGKILL)
    assert driver.wait() == -signal.SIGKILL
    assert workers and gone(workers)


def test_killed_driver_is_resumed(tmp_path: Path) -> None:
    kill_driver(tmp_path, 40, count=1)
    recorded = (tmp_path / JOURNAL).read_bytes()

    found = run(slow, trials=12, storage=tmp_path, resume=True)

    assert found.trials >= 12 and found.failed == 0
    assert (tmp_path / JOURNAL).read_bytes().startswith(recorded[: recorded.rindex(b"\n") + 1])
    whole(tmp_path, found.trials, slow)


@pytest.mark.slow
def test_driver_that_is_killed_three_times_is_resumed(tmp_path: Path) -> None:
    moments = random.Random(int(time.time()))
    for _ in range(3):
        kill_driver(tmp_path, moments.randint(5, 40))
    recorded = (tmp_path / JOURNAL).read_bytes()

    found = run(slow, trials=30, workers=2, threads=1, storage=tmp_path, resume=True)

    assert found.trials == 30 and found.failed == 0
    assert (tmp_path / JOURNAL).read_bytes().startswith(recorded[: recorded.rindex(b"\n") + 1])
    whole(tmp_path, 30, slow)


def workers() -> list[psutil.Process]:
    """Return the living workers of this process."""

    def works(process: psutil.Process) -> bool:
        with suppress(psutil.Error):  # it has just ended
            return "spawn_main" in " ".join(process.cmdline())
        return False

    return [each for each in psutil.Process().children() if works(each)]


@contextmanager
def beside(kill: Callable[[threading.Event], None]) -> Iterator[None]:
    """Let a thread kill workers until the search is over."""
    over = threading.Event()
    thread = threading.Thread(target=kill, args=(over,))
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_killed_worker_loses_no_candidate(tmp_path: Path) -> None:
    killed: list[int] = []

    def kill(over: threading.Event) -> None:
        while not over.wait(0.02) and not killed:
            if lines(tmp_path) > 30:
                killed.append(workers()[0].pid)
                os.kill(killed[0], signal.SIGKILL)

    with beside(kill):
        found = run(slow, trials=15, workers=1, threads=1, storage=tmp_path)

    assert killed and found.trials == 15 and found.failed == 0
    whole(tmp_path, 15, slow)


LOOK = 0.5  # seconds that a worker looks at the teacher in the next test


@dataclass(frozen=True)
class Looks:
    """A hook of a teacher: takes its time, and says by a file that a process has called it."""

    folder: Path

    def __call__(self, *_: object) -> None:
        (self.folder / str(os.getpid())).touch()
        time.sleep(LOOK)

    def begun(self, worker: int) -> bool:
        return (self.folder / str(worker)).exists()


@dataclass
class Killer:
    """Kills each worker at a random moment of its life, and counts what they were at.

    A third are to die while they start, a third while they look at the teacher, a third later, at a
    candidate or between two. What each is at is what its driver knows.
    """

    looks: Looks
    start: float
    pools: list[Pool]
    at: Counter[str] = field(default_factory=Counter)
    _moments: random.Random = field(default_factory=random.Random)
    _aims: dict[int, str] = field(default_factory=dict)
    _due: dict[int, float] = field(default_factory=dict)

    def kill(self, over: threading.Event) -> None:
        """After the first start, which is left alone: three in a row that fail end a search."""
        while not over.wait(0.02) and self.at.total() < 50:
            if self.pools and any(slot.ready for slot in self.pools[-1]._slots):
                self._look_around()

    def _look_around(self) -> None:
        for process in workers():
            self._see(process.pid)
            if time.monotonic() > self._due.get(process.pid, math.inf):
                self.at[self._state(process.pid)] += 1
                process.kill()
                self._due[process.pid] = math.inf

    def _see(self, worker: int) -> None:
        """Set its moment: from its start on, or from its look at the teacher."""
        aim = self._aims.setdefault(worker, self._moments.choice(["start", "look", "later"]))
        if worker not in self._due and (aim == "start" or self.looks.begun(worker)):
            first, last = {"start": (0, self.start / 2), "look": (0, LOOK), "later": (LOOK, 2)}[aim]
            self._due[worker] = time.monotonic() + self._moments.uniform(first, last)

    def _state(self, process: int) -> str:
        for slot in self.pools[-1]._slots:
            if slot.worker.process.pid == process and slot.ready:
                return "between" if slot.task is None else "scoring"
        return "looking" if self.looks.begun(process) else "starting"


@pytest.mark.slow
def test_workers_killed_at_fifty_random_moments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A candidate fails if three workers died of it, and no other does.

    The search is made longer until fifty workers were killed.
    """
    (tmp_path / "looks").mkdir()
    looks, teacher, asked = Looks(tmp_path / "looks"), toyspaces.teacher(), 1
    teacher.register_forward_pre_hook(looks)
    options = {"teacher": teacher, "workers": 2, "threads": 1, "storage": tmp_path, "resume": True}
    killer = Killer(looks, run(slow, trials=asked, **options).seconds, [])
    deaths, start, died = Counter[Hashable](), Pool.start, Pool._died

    def started(pool: Pool) -> None:
        killer.pools.append(pool)
        start(pool)

    def counted(pool: Pool, slot: Any, how: str) -> list[TaskResult]:
        deaths.update([slot.task.key] if slot.task else [])
        return died(pool, slot, how)

    monkeypatch.setattr(Pool, "start", started)
    monkeypatch.setattr(Pool, "_died", counted)
    while killer.at.total() < 50:
        asked += 100
        with beside(killer.kill):  # an idle worker, too: that whose candidate has just ended
            found = run(slow, trials=asked, callbacks=[lambda progress: time.sleep(0.1)], **options)
        assert found.trials == asked

    assert {"starting", "looking", "scoring", "between"} == set(killer.at), killer.at
    assert found.failed == sum(times == TRIES for times in deaths.values())
    assert found.scored + found.failed == asked  # a random one of so many is never met twice
    whole(tmp_path, asked, slow, lost=found.failed)


@pytest.mark.slow
def test_all_workers_killed_at_once(tmp_path: Path) -> None:
    times = 0

    def kill(over: threading.Event) -> None:
        nonlocal times
        seen = lines(tmp_path)
        while not over.wait(0.05) and times < 2:
            if lines(tmp_path) > seen + 40:
                there = workers()
                for each in there:
                    each.kill()
                seen, times = lines(tmp_path), times + 1

    with beside(kill):
        found = run(slow, trials=30, workers=2, threads=1, storage=tmp_path)

    assert times == 2 and found.trials == 30 and found.failed == 0
    whole(tmp_path, 30, slow)


# A clock that jumps


@pytest.mark.slow
def test_clock_that_jumps_ends_no_candidate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a day at every look, forward and back in turn, in this process."""
    clock, day = time.time, iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: clock() + 86400 * (-1) ** next(day))

    assert run(trials=5, storage=tmp_path, workers=1, timeout=60).trials == 5
    found = run(trials=9, storage=tmp_path, resume=True)

    assert found.trials == 9 and found.failed == 0 and 0 < found.seconds < 3600
    whole(tmp_path, 9, toyspaces.tiny)


# Candidates that fail


def bad(trial: BaseTrial) -> nn.Module:
    """Of nine networks two score; the others fail in their own ways, in building or running."""
    kinds = ["fine", "also", "kill", "exit", "hang", "memory", "huge", "raise", "nan"]
    kind = trial.suggest_categorical("kind", kinds)
    if kind == "raise":
        raise SystemExit("enough")
    if kind == "memory":
        raise MemoryError("so many weights")
    if kind == "huge":
        torch.empty(1 << 60)
    return Bad(kind)


class Bad(nn.Module):
    def __init__(self, mark: str) -> None:
        super().__init__()
        self.mark = mark
        self.inner = toyspaces.student([nn.Conv2d(3, 4, 3), nn.ReLU()], 4)

    def forward(self, images: Tensor) -> Tensor:
        if self.mark == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.mark == "exit":
            os._exit(3)
        if self.mark == "hang":
            time.sleep(60)
        return self.inner(images) * (math.nan if self.mark == "nan" else 1.0)


@pytest.mark.slow
def test_candidates_that_fail_in_every_way(tmp_path: Path) -> None:
    options = {"trials": 9, "workers": 2, "timeout": 8, "storage": tmp_path}

    found = run(bad, **options)

    kinds = {"killed": 2, "timeout": 1, "memory": 2, "error": 1, "not finite": 1}
    assert found.failed_by_kind == kinds
    assert (found.trials, found.scored, found.failed) == (9, 2, 7)
    ends = {t.params["kind"]: t.user_attrs["end"].get("failed", "") for t in trials(tmp_path)}
    assert ends["kill"] == "killed: its process died: SIGKILL"
    assert ends["exit"] == "killed: its process died: exit status 3"
    assert ends["hang"] == "timeout: took longer than 8 s"
    assert ends["memory"] == "MemoryError: so many weights"
    assert "you tried to allocate" in ends["huge"]
    assert ends["raise"] == "SystemExit: enough"
    assert " is nan" in ends["nan"] and not ends["nan"].startswith("NotScored")
    again = run(bad, **options, resume=True)
    assert again.top == found.top and len(trials(tmp_path)) == 9


SPACE = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3 * 8 * 8, 10)

    def forward(self, images):
        if len(images) == 4:
            raise ValueError("no network of mine")
        return self.fc(images.flatten(1))

def never(trial):
    trial.suggest_int("number", 0, 99)
    return Net()
"""


@pytest.mark.slow
def test_all_candidates_fail_in_workers(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SPACE)
    line = "search --teacher resnet20 --classes 10 --batch-size 4 --image-size 8 --trials 4"

    ran = call(f"{line} --space {tmp_path}/mine.py:never --workers 2 --out {tmp_path}/run")

    assert "4 failed, such as: ValueError: no network of mine" in ran.mistake(1)
    assert not (tmp_path / "run" / "found.json").exists()
    assert json.loads((tmp_path / "run" / "run.json").read_text())
