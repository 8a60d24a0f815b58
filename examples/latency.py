"""Students within a latency budget, and what each millisecond buys: a minute or two on two cores.

Scikit-learn's handwritten digits need no download. Space S0 is searched with two objectives, a high
score and a low latency that is measured here, for students of ResNet-56 within a budget on both
parameters and latency. What comes out is a front: for each latency the best student known. One of
them, the middle one, is then trained for four epochs. Each step is a command of the command line,
shown as it runs.
"""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path

from diswot.cli import main

SEARCH = (
    "search --teacher resnet56 --space s0 --data digits --batch-size 32 --trials 40 "
    "--objectives score,latency --max-params 0.6M --max-latency 20ms"
)


def diswot(command: str) -> None:
    """Run a command of the command line."""
    print(f"$ diswot {command}", flush=True)
    main(shlex.split(command))


def example(out: Path) -> None:
    """Search, and train one student of the front."""
    diswot(f"{SEARCH} --out {out} --resume")
    front = json.loads((out / "found.json").read_text())["front"]
    middle = len(front) // 2
    training = "--teacher none --epochs 4 --schedule onecycle --lr 0.1 --resume"
    diswot(f"distill {out} --student {middle} {training}")
    print(
        f"the front is drawn in {out}/front.svg; its trials: optuna-dashboard {out}/study.journal"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/latency"))
    example(parser.parse_args().out)
