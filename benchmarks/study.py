"""The rank study: scores every table that is there, for `study_page.py` to tell of.

    python benchmarks/study.py --tables DIR

DIR holds the accuracy tables (s0_cifar100.csv, nasbench201.csv.gz, nasbench101.csv.gz,
vit_autoformer.json) and the images (cifar100.zip, a folder of images a class in an archive).
A study that was stopped goes on where it was: every job keeps its scores in runs/study. Scores that
have Kaiming weights, the default one and AZ-NAS, are of `benchmarks/default.py`, which runs before.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from diswot.cli.rank_scores import BASELINES, setting
from diswot.proxies.registry import PROXIES
from diswot.ranking.score_table import Scores, score_table
from diswot.ranking.tables.read import read_table, sample
from diswot.ranking.tables.rows import AccuracyTable
from diswot.runs import folder as runs

OUT = Path("runs/study")
SEED = 0
LIMIT = 300
PUBLISHED = ("diswot", "semantic", "relation")
GAUSSIAN = {name: row for name, row in PROXIES.items() if row.init == "gaussian"}
SHARED = tuple(name for name, row in GAUSSIAN.items() if row.cost in ("free", "forward"))
COSTLY = tuple(name for name, row in GAUSSIAN.items() if row.cost not in ("free", "forward"))
WIDE = "benchmarks/study_teachers.py:wide"
SLOW = ("vkdnw", "ntk_cond", "grasp")
QUICKER = tuple(name for name in COSTLY if name not in SLOW)
TEACHERS = ("resnet20", "resnet32", "resnet44", "resnet56", "resnet110")


@dataclass(frozen=True)
class Job:
    """One table scored in one way.

    Attributes:
        name: Its folder.
        table: File name.
        space: Of the table.
        proxies: What to score.
        limit: How many architectures; all if None.
        cost: Rough seconds, to begin with the longest.
        settings: What differs from the defaults below.
    """

    name: str
    table: str
    space: str
    proxies: tuple[str, ...]
    cost: float
    limit: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)


DEFAULTS: dict[str, Any] = {
    "teacher": "resnet110",
    "teacher_weights": None,
    "pretrained": False,
    "data": "noise",
    "data_root": None,
    "classes": 100,
    "image_size": None,
    "mean": None,
    "std": None,
    "batch_size": 64,
    "repeats": 5,
    "init": "gaussian",
    "seed": SEED,
}
S0 = ("s0_cifar100.csv", "s0")
NB201 = ("nasbench201.csv.gz", "nasbench201")
NB101 = ("nasbench101.csv.gz", "nasbench101")
VIT = ("vit_autoformer.json", "autoformer")


def jobs(images: Path) -> list[Job]:
    """All of the study."""
    both = {"noise": {}, "images": {"data": str(images)}}
    found = []
    for kind, data in both.items():
        found += list(_tables(kind, data))
        for teacher in TEACHERS[:-1]:
            settings = {**data, "teacher": teacher}
            found.append(Job(f"teacher/{teacher}/{kind}", *S0, PUBLISHED, 60, None, settings))
        for size in (16, 32, 128, 256):
            settings = {**data, "batch_size": size}
            found.append(Job(f"batch/{size}/{kind}", *S0, PUBLISHED, size, None, settings))
        for init in ("kaiming", "default"):
            settings = {**data, "init": init}
            found.append(Job(f"init/{init}/{kind}", *S0, PUBLISHED, 60, None, settings))
        settings = {**data, "repeats": 16}
        found.append(Job(f"repeats/16/{kind}", *S0, PUBLISHED, 200, None, settings))
    for classes in (10, 20, 50, 200):
        settings = {"classes": classes}
        found.append(Job(f"classes/{classes}/noise", *S0, PUBLISHED, 60, None, settings))
    return found


def _tables(kind: str, data: dict[str, Any]) -> Iterator[Job]:
    """Every table by every proxy that it can afford.

    Those of one forward pass are averaged over repeats; the others are scored once, on smaller
    batches. What takes 2 to 20 seconds a network is left to S0 and 100 networks of NAS-Bench-201.
    """
    once, two = {**data, "repeats": 1}, {**data, "repeats": 2}
    wide = {**once, "teacher": WIDE}
    yield Job(f"s0/shared/{kind}", *S0, SHARED, 100, None, data)
    yield Job(f"nasbench201/shared/{kind}", *NB201, SHARED, 300, LIMIT, two)
    yield Job(f"autoformer/shared/{kind}", *VIT, SHARED, 70, None, {**two, "batch_size": 32})
    yield Job(f"nasbench101/shared/{kind}", *NB101, SHARED, 250, LIMIT, {**wide, "batch_size": 16})
    if kind == "images":
        small, few = {**once, "batch_size": 32}, {**once, "batch_size": 16}
        yield Job(f"s0/costly/{kind}", *S0, COSTLY, 450, None, once)
        yield Job(f"nasbench201/costly/{kind}", *NB201, QUICKER, 1300, LIMIT, small)
        yield Job(f"nasbench201/slow/{kind}", *NB201, SLOW, 1200, 100, small)
        yield Job(f"autoformer/costly/{kind}", *VIT, QUICKER, 800, None, few)
        less = {**wide, "batch_size": 8}
        yield Job(f"nasbench101/costly/{kind}", *NB101, QUICKER, 2000, LIMIT, less)


def table_of(job: Job, folder: Path) -> AccuracyTable:
    """The architectures of a job."""
    whole = read_table(folder / job.table, job.space)
    return whole if job.limit is None else sample(whole, job.limit, SEED)


def run(job: Job, folder: Path) -> tuple[str, int, float]:
    """Score what is not scored yet, and keep it."""
    start, out = time.perf_counter(), OUT / job.name
    config = {**DEFAULTS, **job.settings, "table": job.table, "space": job.space}
    runs.begin(out, config, resume=True)
    rows = {row.name: row.params for row in table_of(job, folder).rows}
    proxies = list(dict.fromkeys([*job.proxies, *BASELINES]))
    score_table(partial(setting, config, proxies), rows, proxies, keep=out / "scores.jsonl")
    return job.name, len(rows), time.perf_counter() - start


def scores(job: Job) -> dict[str, Scores]:
    """What a finished job left."""
    from diswot.ranking.score_table import read_kept

    return read_kept(OUT / job.name / "scores.jsonl")


def unpacked(folder: Path) -> Path:
    """The training images of the archive, in the system's folder for temporary files."""
    place = Path(tempfile.gettempdir()) / "diswot-study"
    if not (place / "done").exists():
        with zipfile.ZipFile(folder / "cifar100.zip") as archive:
            names = [name for name in archive.namelist() if name.startswith("cifar100/train/")]
            archive.extractall(place, names)
        (place / "done").touch()
    return place / "cifar100"


def there(wanted: Iterable[Job], folder: Path) -> list[Job]:
    """The jobs whose table is there; says which are not."""
    missing = sorted({job.table for job in wanted if not (folder / job.table).is_file()})
    for name in missing:
        print(f"left out: {folder / name} is not there")
    return [job for job in wanted if job.table not in missing]


def score_all(todo: list[Job], folder: Path, workers: int) -> None:
    """A process a job, the longest first."""
    spawn = multiprocessing.get_context("spawn")
    start = time.perf_counter()
    threads = max(1, torch.get_num_threads() // workers)
    with ProcessPoolExecutor(workers, spawn, _begin, (threads,)) as pool:
        longest = sorted(todo, key=lambda job: -job.cost)
        running = [pool.submit(run, job, folder) for job in longest]
        try:
            for done, future in enumerate(as_completed(running), 1):
                name, rows, seconds = future.result()
                passed = (time.perf_counter() - start) / 60
                print(
                    f"{passed:5.1f} min  {done}/{len(todo)}  {name}: {rows} in {seconds:.0f} s",
                    flush=True,
                )
        except KeyboardInterrupt:
            for process in pool._processes.values():
                process.terminate()
            raise


def _begin(threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--only", default="", help="jobs whose name begins with this")
    given = parser.parse_args()
    if not (given.tables / "cifar100.zip").is_file():
        sys.exit(f"skipped: {given.tables} holds no cifar100.zip, or is not there")
    todo = there(jobs(unpacked(given.tables)), given.tables)
    chosen = [job for job in todo if job.name.startswith(given.only)]
    score_all(chosen, given.tables, given.workers)


if __name__ == "__main__":
    main()
