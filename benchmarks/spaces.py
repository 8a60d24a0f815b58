"""What scoring costs at the size of ImageNet, and that memory stays flat. `make bench` runs it.

(a) Random networks of `imagenet_resnet` within the budget of ResNet-18 (parameters and multiply-
    adds), teacher ResNet-34: scoring each over its bare forward pass, and building it besides.
(b) Memory of a process that scores many networks of different shapes, one after the other: what it
    held at the most after 50 and after all of them, and what it holds at that time.

The issue of it asks for 100 networks at 224 pixels, batch 32, on 2 cores, and for 500 networks.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from timing import footer
from torch import nn
from torchvision.models import resnet18, resnet34

from diswot.cli import console
from diswot.costs.budget import Budget, Costs
from diswot.data.registry import create_dataset
from diswot.models.initialization import fresh
from diswot.proxies.registry import get_proxy
from diswot.proxies.scorer import Scorer, scorer
from diswot.spaces.registry import Params, build_network, create_space
from diswot.spaces.trials import EnumeratingTrial

CLASSES = 1000
MARK = 50  # candidates after which memory is looked at first


def within_budget(size: int, seed: int) -> Iterator[Params]:
    """Random networks no larger than ResNet-18, without end."""
    random, shape = np.random.default_rng(seed), (3, size, size)
    with torch.device("meta"):
        small = resnet18()
        budget = Budget.like(small, shape)
    build = create_space("imagenet_resnet", CLASSES, size)
    while True:
        path = EnumeratingTrial(random=random)
        with torch.device("meta"):
            fits = budget.check(Costs(build(path), shape))[0] is None
        if fits:
            yield path.params


@dataclass
class Seconds:
    """Of each candidate."""

    bare: list[float] = field(default_factory=list)
    score: list[float] = field(default_factory=list)
    build: list[float] = field(default_factory=list)

    def over_bare(self) -> list[str]:
        """Of all candidates together, and from the 10th to the 90th percentile of the ratios."""
        turns = sorted(s / b for s, b in zip(self.score, self.bare, strict=True))
        low, high = turns[len(turns) // 10], turns[-1 - len(turns) // 10]
        total = sum(self.bare)
        return [
            f"{statistics.mean(self.bare):.2f} s",
            f"{sum(self.score) / total:.3f}",
            f"{statistics.median(turns):.3f} ({low:.3f} to {high:.3f})",
            f"{(sum(self.score) + sum(self.build)) / total:.3f}",
        ]


def fixed(proxy: str, size: int, batch_size: int) -> Scorer:
    batch = create_dataset("noise", num_classes=CLASSES, img_size=size).batch(batch_size)
    return scorer(resnet34(), [batch], init=get_proxy(proxy).init)


def timed(work: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    work()
    return clock() - start


def scoring(
    proxy: str, count: int, size: int, batch_size: int, clock: Callable[[], float]
) -> Seconds:
    """Time each candidate's bare pass and its score, one right after the other, in turns."""
    score, seconds = fixed(proxy, size, batch_size), Seconds()
    images, build = score.batches[0].images, create_space("imagenet_resnet", CLASSES, size)

    def bare(model: nn.Module) -> None:
        with torch.inference_mode():
            model(images)

    for number, params in zip(range(count), within_budget(size, seed=0), strict=False):
        start = clock()
        model = fresh(partial(build_network, build, params), score.init, 0)
        seconds.build.append(clock() - start)
        bare(model)  # a first pass of new shapes makes kernels
        work = [
            (seconds.bare, partial(bare, model)),
            (seconds.score, partial(score.score, [model], [proxy])),
        ]
        for into, call in work if number % 2 else work[::-1]:
            into.append(timed(call, clock))
    return seconds


def resident() -> float:
    """MB that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def peak() -> float:
    """MB that this process held at the most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def memory(proxy: str, count: int, size: int, batch_size: int) -> list[list[str]]:
    """Score that many candidates in this process, which should be a new one."""
    score, rows = fixed(proxy, size, batch_size), []
    build = create_space("imagenet_resnet", CLASSES, size)
    for number, params in zip(range(1, count + 1), within_budget(size, seed=1), strict=False):
        score.score(score.students(partial(build_network, build, params)), [proxy])
        if number in (MARK, count):
            gc.collect()
            rows.append([str(number), f"{peak():.0f} MB", f"{resident():.0f} MB"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--candidates", type=int, default=100, help="to time")
    parser.add_argument("--memory", type=int, default=500, help="to look at memory with")
    parser.add_argument("--size", type=int, default=224, help="of images, in pixels")
    parser.add_argument("--memory-size", type=int, help="of images for memory; else --size")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument(
        "--cpu-time", action="store_true", help="of all threads, on a machine that is busy"
    )
    parser.add_argument("--proxies", default="diswot,default", help="names with commas")
    options = parser.parse_args()
    proxies, batch_size = options.proxies.split(","), options.batch_size
    if options.candidates:
        columns = ["score", "bare pass", "score over it", "each", "and build, initialise"]
        title = f"(a) {options.candidates} candidates at {options.size} pixels; target 1.15"
        clock = time.process_time if options.cpu_time else time.perf_counter
        rows = [
            [name, *scoring(name, options.candidates, options.size, batch_size, clock).over_bare()]
            for name in proxies
        ]
        console.table(f"{title}, batch {batch_size}", columns, rows)
    if options.memory:
        size = options.memory_size or options.size
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            rows = pool.apply(memory, (proxies[0], options.memory, size, batch_size))
        columns = ["candidates", "at the most", "now"]
        console.table(f"(b) memory, scored by {proxies[0]} at {size} pixels", columns, rows)
    print(footer(options.candidates))


if __name__ == "__main__":
    main()
