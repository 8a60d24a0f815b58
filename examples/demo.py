"""The whole method on real images, in a few minutes on a CPU: `make demo`.

The images are two-digit numbers, made of scikit-learn's handwritten digits, so nothing is
downloaded. A ResNet-20 is trained to be the teacher. Its sub-networks are searched for the best
student that costs no more than a design by hand, a ResNet-20 with half of the channels, without
training any candidate. The found student, the design by hand and random students of the budget
start from their teacher and are distilled alike. The found student is also trained without the
teacher's outputs, and from random weights. Each step is a command of the command line, shown as it
runs; a finished step is not repeated.
"""

from __future__ import annotations

import io
import json
import os
import random
import shlex
import statistics
from collections.abc import Iterable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from PIL import Image

import diswot
from diswot.cli import console, main

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch is loaded

OUT = Path("runs/demo")
IMAGES, WEIGHTS = OUT / "numbers", OUT / "teacher" / "student.safetensors"
DATA = f"--data {IMAGES} --mean 0.15 --std 0.28"
TRAINING = "--crop 2 --no-flip"
TEACHER_EPOCHS, BRIEF, LONG = 12, 1, 4
SEEDS = {BRIEF: 5, LONG: 3}  # trainings of each number of epochs
HAND = json.dumps({f"depth_{i}": 3 for i in (1, 2, 3)} | {f"width_{i}": 0.5 for i in (1, 2, 3)})

Result = dict[str, Any]


def write_numbers(root: Path) -> None:
    """Write the numbers 00 to 99 as a folder of images; no digit is in both splits."""
    digits, draw = diswot.create_dataset("digits", img_size=8), random.Random(0)
    for split, pool, count in (("train", digits.train, 30), ("test", digits.test, 10)):
        pixels, labels = pool.read(range(len(pool)))[:, 0].numpy(), pool.labels.tolist()
        places = [[i for i, label in enumerate(labels) if label == digit] for digit in range(10)]
        for number in range(100):
            folder = root / split / f"{number:02}"
            folder.mkdir(parents=True, exist_ok=True)
            for i in range(count):
                image = Image.new("L", (16, 16))
                for left, digit in enumerate(divmod(number, 10)):
                    chosen = Image.fromarray(pixels[draw.choice(places[digit])])
                    image.paste(chosen, (8 * left, draw.randrange(9)))
                image.save(folder / f"{i:02}.png")


def command(text: str) -> Result:
    """Run a command of the command line and return the JSON object that it prints."""
    print(f"$ diswot {text}", flush=True)
    printed = io.StringIO()
    with redirect_stdout(printed):
        main([*shlex.split(text), "--json"])
    result: Result = json.loads(printed.getvalue().splitlines()[-1])
    return result


def search(name: str, options: str) -> Result:
    """Search the sub-networks of the teacher within the cost of the design by hand."""
    return command(
        f"search --teacher resnet20 --space subnet:resnet20 {DATA} --like {shlex.quote(HAND)} "
        f"{options} --out {OUT / name} --resume"
    )


def train(name: str, run: str, options: str, epochs: int, seed: int) -> Result:
    """Train a student, by default the best of a search."""
    return command(
        f"distill {OUT / run} {options} {TRAINING} --epochs {epochs} --seed {seed} "
        f"--out {OUT / 'trained' / name}-{epochs}-{seed} --resume"
    )


def row(name: str, runs: Iterable[Result]) -> list[str]:
    """A line of the table."""
    runs = list(runs)
    accuracies = [run["test_accuracy"] for run in runs]
    return [
        name,
        f"{statistics.fmean(accuracies):.1f}",
        f"{min(accuracies):.1f} to {max(accuracies):.1f}",
        str(len(runs)),
        str(runs[0]["epochs"]),
        _range([run["model_params"] / 1e3 for run in runs], ".1f", "K"),
        _range([run["macs"] / 1e6 for run in runs], ".2f", "M"),
    ]


def _range(values: list[float], digits: str, unit: str) -> str:
    low, high = format(min(values), digits), format(max(values), digits)
    return f"{low} {unit}" if low == high else f"{low} to {high} {unit}"


def demo() -> None:
    """Train the teacher, search, distil, and print the table."""
    write_numbers(IMAGES)
    teacher = command(
        f"distill --student resnet20 --teacher none {DATA} {TRAINING} --recipe plain --schedule "
        f"onecycle --lr 0.1 --epochs {TEACHER_EPOCHS} --out {WEIGHTS.parent} --resume"
    )
    taught = f"--teacher-weights {WEIGHTS}"
    found = search("search", f"{taught} --trials 200")
    search("random", "--trials 5 --sampler random --proxy params")
    by_hand = f"{taught} --student {shlex.quote(HAND)}"
    rows = [row("teacher: ResNet-20", [teacher])]
    for title, name, options, epochs in (
        ("found, from its teacher, distilled", "found", taught, BRIEF),
        ("by hand, from its teacher, distilled", "hand", by_hand, BRIEF),
        ("found, from its teacher, labels alone", "labels", f"{taught} --losses kd:0", BRIEF),
        ("found, from its teacher, distilled", "found", taught, LONG),
        ("found, fresh, distilled", "fresh", f"{taught} --start fresh", LONG),
        ("found, fresh, alone", "alone", "--teacher none", LONG),
    ):
        seeds = range(SEEDS[epochs])
        rows.append(row(title, [train(name, "search", options, epochs, s) for s in seeds]))
    drawn = [train("random", "random", f"{taught} --student {i}", BRIEF, i) for i in range(5)]
    rows.insert(3, row("5 random, from their teacher, distilled", drawn))
    _show(found, rows)


def _show(found: Result, rows: list[list[str]]) -> None:
    """Print the table, the budget, and what was found."""
    columns = ["two-digit numbers", "test %", "min to max", "n", "epochs", "params", "MACs"]
    print()
    console.table("students of one budget", columns, rows)
    print("budget: params and MACs of the design by hand, a ResNet-20 with half of the channels")
    print(f"found: {console.show_params(found['best']['params'])}")
    print(f"searching: {found['seconds']:.1f} s for {found['scored']} candidates within the budget")
    print(f"kept in {OUT}")


if __name__ == "__main__":
    demo()
