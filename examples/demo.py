"""The whole method on real images, in a few minutes on a CPU: `make demo`.

Scikit-learn's handwritten digits need no download. A ResNet-56 is trained to be the teacher; space
S0 is searched for its best student of at most 0.3 million parameters, without training any
candidate; the found student is distilled, and compared with itself trained alone and with the
hand-designed ResNet-20. Each step is a command of the command line, shown as it runs; a step that
was done before is not done again.
"""

from __future__ import annotations

import io
import json
import shlex
import statistics
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from diswot.cli import console, main

OUT = Path("runs/demo")
TRAINING = "--data digits --schedule onecycle --lr 0.1"
TEACHER_EPOCHS, EPOCHS, SEEDS = 16, 8, 3


def diswot(command: str) -> dict[str, Any]:
    """Run a command of the command line and return the JSON object that it prints."""
    print(f"$ diswot {command}", flush=True)
    printed = io.StringIO()
    with redirect_stdout(printed):
        main([*shlex.split(command), "--json"])
    result: dict[str, Any] = json.loads(printed.getvalue().splitlines()[-1])
    return result


def train(student: str, teacher: str, name: str) -> list[dict[str, Any]]:
    """Train a student with each seed."""
    runs = []
    for seed in range(SEEDS):
        out = OUT / "trained" / f"{name}-{seed}"
        options = f"{TRAINING} --epochs {EPOCHS} --seed {seed} --out {out} --resume"
        runs.append(diswot(f"distill --student {student} {teacher} {options}"))
    return runs


def row(name: str, runs: list[dict[str, Any]]) -> list[str]:
    """A line of the table."""
    accuracies = [run["test_accuracy"] for run in runs]
    spread = f"{min(accuracies):.1f} to {max(accuracies):.1f}"
    size = [f"{runs[0]['model_params'] / 1e3:.0f} K", f"{runs[0]['macs'] / 1e6:.1f} M"]
    return [name, f"{statistics.fmean(accuracies):.2f}", spread, *size]


def demo() -> None:
    """Teacher, search, distillation, table."""
    weights = OUT / "teacher" / "student.safetensors"
    teacher = diswot(
        f"distill --student resnet56 --teacher none {TRAINING} --epochs {TEACHER_EPOCHS} "
        f"--out {weights.parent} --resume"
    )
    found = diswot(
        "search --teacher resnet56 --space s0 --data digits --max-params 0.3M --trials 64 "
        f"--out {OUT} --resume"
    )
    student = shlex.quote(json.dumps(found["best"]["params"]))
    taught = f"--teacher resnet56 --teacher-weights {weights}"
    distilled = train(student, taught, "found-distilled")
    alone = train(student, "--teacher none", "found-alone")
    by_hand = train("resnet20", taught, "resnet20-distilled")
    columns = ["digits", "test accuracy %", f"of {SEEDS} seeds", "params", "MACs"]
    rows = [
        row("teacher: ResNet-56", [teacher]),
        row("found student, distilled", distilled),
        row("found student, alone", alone),
        row("ResNet-20, distilled", by_hand),
    ]
    print()
    shape = console.show_params(found["best"]["params"])
    console.table(f"found: {shape}; {EPOCHS} epochs each", columns, rows)
    one = statistics.fmean(run["seconds"] for run in distilled + by_hand)
    count, searching = found["scored"], found["seconds"]
    over = f" over {found['runs']} runs" if found["runs"] > 1 else ""
    print(f"searching: {searching:.1f} s{over} for the {count} candidates within the budget")
    print(
        f"training each for {EPOCHS} epochs: about {count * one:.0f} s, "
        f"{count * one / searching:.0f} times as long"
    )
    print(f"(an estimate: {count} times the {one:.1f} s that one training took here)")
    print(f"kept in {OUT}")


if __name__ == "__main__":
    demo()
