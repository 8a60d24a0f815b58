"""What measuring a network's latency costs, and how well it repeats. `make bench` runs it.

(a) A measurement over scoring the same network: what a latency limit adds to a search.
(b) The spread of repeated measurements of the same network, each in the measuring process: alone,
    and while other processes score, one for each core of the machine.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from timing import footer
from torch import nn

from diswot.cli import console
from diswot.costs.latency import LatencyBench, Setting
from diswot.data.registry import create_dataset
from diswot.executors.processes import process_pool
from diswot.models.registry import create_teacher
from diswot.proxies.scorer import scorer
from diswot.spaces.registry import Params, build_network, create_space
from diswot.utils.units import show_seconds

Measure = Callable[[Params], float]  # seconds of one image

SHAPE = (3, 32, 32)
STUDENTS = {
    "S0 1-1-1": {"blocks1": 1, "blocks2": 1, "blocks3": 1},
    "S0 3-3-3 (ResNet-20)": {"blocks1": 3, "blocks2": 3, "blocks3": 3},
    "S0 7-7-7 (ResNet-44)": {"blocks1": 7, "blocks2": 7, "blocks3": 7},
}


def bench(setting: Setting) -> Measure:
    """Take a parameter `turn`, too, which makes each repetition another architecture."""
    space = create_space("s0", 100)

    def build(params: Params) -> nn.Module:
        return build_network(space, {n: v for n, v in params.items() if n != "turn"})

    measuring = LatencyBench(build, setting)
    return lambda params: measuring(params).seconds


@contextmanager
def process(setting: Setting) -> Iterator[Measure]:
    """Measure in a process of its own."""
    with process_pool([partial(bench, setting)], 1, threads=setting.threads) as pool:

        def measure(params: Params) -> float:
            pool.submit("latency", params)
            while not (results := pool.wait()):
                continue
            return float(results[0].value)

        yield measure


def score_for_ever() -> None:
    torch.set_num_threads(1)
    batch = create_dataset("noise", num_classes=100).batch(64)
    fixed = scorer(create_teacher("resnet56", 100), [batch])
    build = partial(build_network, create_space("s0", 100), STUDENTS["S0 3-3-3 (ResNet-20)"])
    parent = multiprocessing.parent_process()
    while parent is None or parent.is_alive():
        fixed.score(fixed.students(build), ["diswot"])


@contextmanager
def scoring(processes: int) -> Iterator[None]:
    """So many processes that score, once they do."""
    context = multiprocessing.get_context("spawn")
    started = [context.Process(target=score_for_ever, daemon=True) for _ in range(processes)]
    try:
        for process in started:
            process.start()
        if started:
            time.sleep(20)  # until they have imported and observed
        yield
    finally:
        for process in started:
            process.kill()
            process.join()


def repeated(measure: Measure, params: Params, times: int, label: str) -> list[float]:
    return [measure({**params, "turn": f"{label}{n}"}) for n in range(times)]


def spread(values: list[float]) -> str:
    """Median, and how far the rest is from it, in percent of it."""
    median = statistics.median(values)
    worst = max(abs(value / median - 1) for value in values)
    deviation = statistics.pstdev(values) / median
    return f"{show_seconds(median)} ± {100 * deviation:.1f} % (at most {100 * worst:.0f} %)"


def costs(measure: Measure, times: int) -> None:
    batch = create_dataset("noise", num_classes=100).batch(64)
    fixed = scorer(create_teacher("resnet56", 100), [batch], init="kaiming")
    rows = []
    for name, params in STUDENTS.items():
        build = partial(build_network, create_space("s0", 100), params)
        measuring, scored = [], []
        for turn in range(times):
            start = time.perf_counter()
            fixed.score(fixed.students(build), ["default"])
            middle = time.perf_counter()
            measure({**params, "turn": f"cost{turn}"})
            scored.append(middle - start)
            measuring.append(time.perf_counter() - middle)
        one, other = statistics.median(measuring), statistics.median(scored)
        rows.append([name, show_seconds(one), show_seconds(other), f"{one / other:.2f}"])
    console.table(
        "(a) measuring one network over scoring it by the default score, batch 64",
        ["student", "measuring", "scoring", "ratio"],
        rows,
    )


def repeatability(meters: dict[str, Measure], times: int) -> None:
    found: dict[str, dict[str, list[float]]] = {}
    cores = os.cpu_count() or 1
    for label, beside in (("alone", 0), (f"beside {cores} that score", cores)):
        with scoring(beside):
            for engine, meter in meters.items():
                for name, params in STUDENTS.items():
                    row = found.setdefault(f"{name}, {engine}", {})
                    row[label] = repeated(meter, params, times, label)
    labels = list(next(iter(found.values())))
    rows = []
    for name, row in found.items():
        alone, busy = (statistics.median(row[label]) for label in labels)
        rows.append([name, *(spread(row[label]) for label in labels), f"{busy / alone:.2f}"])
    console.table(
        f"(b) the same network measured {times} times: median, standard deviation",
        ["student", *labels, "ratio"],
        rows,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=15)
    parser.add_argument("--onnx", action="store_true", help="measure by ONNX Runtime, too")
    options = parser.parse_args()
    engines = {"torch, 1 thread": Setting(SHAPE), "torch, 2 threads": Setting(SHAPE, threads=2)}
    if options.onnx:
        engines["onnx, 1 thread"] = Setting(SHAPE, engine="onnx")
    with ExitStack() as stack:
        meters = {n: stack.enter_context(process(s)) for n, s in engines.items()}
        costs(meters["torch, 1 thread"], options.times)
        repeatability(meters, options.times)
    print(footer(options.times))


if __name__ == "__main__":
    main()
