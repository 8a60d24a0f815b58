"""Scoring on a GPU: candidates a second, what a candidate costs, and whether the card is the limit.

(a) Candidates a second of a search of S0 with several workers on one card, and with the CPU alone.
(b) The published procedure and a bare forward pass over scoring a candidate, all on the card; and
    how far its scores are from the CPU's.
(c) The share of a candidate's time in which the card computes. Near 1 the card is the limit, and
    more workers do not help; near 0 it waits for the CPU to launch.

`python benchmarks/gpu.py`; where there is no such device it says so and ends. The smallest run, on
any machine: `--device cpu --trials 8 --workers 1 2 --turns 2 --size 8`.
"""

from __future__ import annotations

import argparse
import os
import statistics
from functools import partial

import optuna
import torch
from speed import STUDENTS, builder, published
from timing import footer, in_turn
from torch import nn
from torch.autograd import DeviceType
from torch.profiler import profile, supported_activities
from workers import rate

from diswot.cli import console
from diswot.data.dataset import Batch
from diswot.data.registry import create_dataset
from diswot.errors import UserError
from diswot.models.initialization import fresh
from diswot.models.registry import create_teacher
from diswot.proxies.scorer import Scorer, scorer
from diswot.utils import devices

PROXY = "diswot"  # the published score
NAMES = [name for name in STUDENTS if name.startswith("S0")]


def rates(options: argparse.Namespace) -> None:
    places = [("cpu", len(os.sched_getaffinity(0)))]
    places += [(options.device, count) for count in options.workers]
    rows, base = [], 0.0
    for device, workers in places:
        each = [rate(workers, options.trials, device, options.size) for _ in range(options.turns)]
        middle = statistics.median(each)
        base = base or middle
        told = f"{middle:.2f} ({min(each):.2f} to {max(each):.2f})"
        rows.append([device, str(workers), told, f"{middle / base:.2f}"])
    console.table(
        f"(a) candidates a second of {options.trials}, default score, {options.size} images",
        ["device", "workers", "a second", "over the CPU"],
        rows,
    )


def bare(model: nn.Module, batch: Batch) -> None:
    with torch.inference_mode():
        model(batch.images).cpu()  # waits for the card


def costs(fixed: Scorer, here: Scorer, batch: Batch, turns: int) -> None:
    rows = []
    for name in NAMES:
        build = builder(name)
        model = fresh(build, "gaussian", 0).to(batch.images.device)
        work = {
            "ours": lambda build=build: fixed.score(fixed.students(build), [PROXY]),
            "bare": partial(bare, model, batch),
            "published": partial(published, build, batch),
        }
        times = in_turn(work, turns)
        ratios = [times[which].over(times["ours"]) for which in ("bare", "published")]
        one, other = (each.score(each.students(build), [PROXY])[PROXY][0] for each in (fixed, here))
        spent, apart = f"{1e3 * times['ours'].median:.1f} ms", f"{abs(one / other - 1):.1e}"
        rows.append([name, spent, *ratios, apart])
    console.table(
        "(b) one candidate, built and scored; target of the difference 1e-4",
        ["student", "ours", "bare over ours", "published over ours", "from the CPU's score"],
        rows,
    )


def busy(fixed: Scorer, turns: int) -> None:
    """Kernels are timed by the profiler, the whole without it: it makes the host slower."""
    rows = []
    for name in NAMES:
        build = builder(name)
        work = lambda build=build: fixed.score(fixed.students(build), [PROXY])  # noqa: E731
        whole = in_turn({"": work}, turns)[""].median
        with profile(activities=supported_activities()) as seen:
            for _ in range(turns):
                work()
        events = seen.key_averages()
        kernels = sum(e.self_device_time_total for e in events if e.device_type != DeviceType.CPU)
        launches = [e for e in events if "LaunchKernel" in e.key]
        card = kernels / turns / 1e6
        count = sum(e.count for e in launches) / turns
        spent = sum(e.self_cpu_time_total for e in launches) / turns
        told = [f"{1e3 * whole:.1f}", f"{1e3 * card:.1f}", f"{card / whole:.0%}"]
        rows.append([name, *told, f"{count:.0f}", f"{spent / 1e3:.1f}"])
    console.table(
        "(c) milliseconds of a candidate; kernels, copies and launches by the profiler",
        ["student", "whole", "on the card", "busy", "launches", "launching"],
        rows,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--size", type=int, default=64, help="images of the batch")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        device = devices.get_device(options.device)
    except UserError as error:
        print(f"skipped: {error}")
        return
    rates(options)
    plain = create_dataset("noise", num_classes=100).batch(options.size)
    batch = Batch(plain.images.contiguous().to(device), plain.labels.to(device))
    teacher = create_teacher("resnet56", 100)
    fixed, here = scorer(teacher, [plain], device=device), scorer(teacher, [plain])
    with devices.exact(device):  # for the others, too
        costs(fixed, here, batch, options.turns)
    busy(fixed, options.turns)
    print(footer(options.turns))


if __name__ == "__main__":
    main()
