"""The whole method on real images, in a few minutes on a CPU: `make demo`.

Scikit-learn's handwritten digits need no download. A ResNet-56 is trained to be the teacher. Space
S0 is searched for its best student that costs no more than ResNet-20, without training any
candidate. The found student is distilled from its teacher's weights, distilled from random weights,
and trained alone. A random student of the budget is distilled as the first one. Each step is a
command of the command line, shown as it runs; a finished step is not repeated.
"""

from __future__ import annotations

import io
import json
import os
import shlex
import statistics
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from diswot.cli import console, main

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch is loaded

OUT = Path("runs/demo")
DATA = "--data digits --image-size 16"
TRAINING = f"{DATA} --recipe plain --crop 2 --schedule onecycle"
BUDGET = "--like resnet20"
INHERITED, FRESH = "--lr 0.03", "--start fresh --lr 0.1"
TEACHER_EPOCHS, EPOCHS, SEEDS = 12, 3, 3


def diswot(command: str) -> dict[str, Any]:
    """Run a command of the command line and return the JSON object that it prints."""
    print(f"$ diswot {command}", flush=True)
    printed = io.StringIO()
    with redirect_stdout(printed):
        main([*shlex.split(command), "--json"])
    result: dict[str, Any] = json.loads(printed.getvalue().splitlines()[-1])
    return result


def train(student: str, options: str, name: str) -> list[dict[str, Any]]:
    """Train a student with each seed."""
    runs = []
    for seed in range(SEEDS):
        out = OUT / "trained" / f"{name}-{seed}"
        fixed = f"{TRAINING} --epochs {EPOCHS} --seed {seed} --out {out} --resume"
        runs.append(diswot(f"distill --space s0 --student {student} {options} {fixed}"))
    return runs


def row(name: str, runs: list[dict[str, Any]]) -> list[str]:
    """A line of the table."""
    accuracies = [run["test_accuracy"] for run in runs]
    spread = f"{min(accuracies):.1f} to {max(accuracies):.1f}"
    size = [f"{runs[0]['model_params'] / 1e3:.0f} K", f"{runs[0]['macs'] / 1e6:.1f} M"]
    return [name, f"{statistics.fmean(accuracies):.2f}", spread, *size]


def search(out: Path, options: str) -> dict[str, Any]:
    """Search S0 within the budget."""
    return diswot(
        f"search --teacher resnet56 --space s0 {DATA} {BUDGET} {options} --out {out} --resume"
    )


def demo() -> None:
    """Train the teacher, search, distil, and print the table."""
    weights = OUT / "teacher" / "student.safetensors"
    teacher = diswot(
        f"distill --student resnet56 --teacher none {TRAINING} --lr 0.1 --epochs {TEACHER_EPOCHS} "
        f"--out {weights.parent} --resume"
    )
    found = search(OUT, "--trials 64")
    chance = search(OUT / "random", "--trials 1 --sampler random --proxy params")
    best, drawn = (shlex.quote(json.dumps(run["best"]["params"])) for run in (found, chance))
    taught = f"--teacher resnet56 --teacher-weights {weights}"
    distilled = train(best, f"{taught} {INHERITED}", "found")
    rows = [
        row("teacher: ResNet-56", [teacher]),
        row("found student, from its teacher, distilled", distilled),
        row("found student, fresh, distilled", train(best, f"{taught} {FRESH}", "found-fresh")),
        row("found student, fresh, alone", train(best, f"--teacher none {FRESH}", "found-alone")),
        row(
            "a random student, from its teacher, distilled",
            train(drawn, f"{taught} {INHERITED}", "random"),
        ),
    ]
    columns = ["digits", "test accuracy %", f"of {SEEDS} seeds", "params", "MACs"]
    print()
    shape = console.show_params(found["best"]["params"])
    console.table(f"found: {shape}; {EPOCHS} epochs each", columns, rows)
    one = statistics.fmean(run["seconds"] for run in distilled)
    count, searching = found["scored"], found["seconds"]
    print(f"searching: {searching:.1f} s for the {count} candidates within the budget")
    print(
        f"training each for {EPOCHS} epochs: about {count * one:.0f} s, "
        f"{count * one / searching:.0f} times as long"
    )
    print(f"(an estimate: {count} times the {one:.1f} s that one training took here)")
    print(f"kept in {OUT}")


if __name__ == "__main__":
    demo()
