"""A space of one's own, searched and distilled: about two minutes on a CPU.

`space` is all there is to a space: a function of a trial that returns a network. The commands
below name it as `examples/own_space.py:space`, and run as they are shown. docs/spaces.md tells how
to write one.
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from optuna.trial import BaseTrial
from torch import nn

from diswot.cli import main

ACTIVATIONS = {"relu": nn.ReLU, "silu": nn.SiLU}


def space(trial: BaseTrial, classes: int) -> nn.Module:
    """Two to four stages, each with its own width, kernel and number of layers."""
    act = ACTIVATIONS[trial.suggest_categorical("act", list(ACTIVATIONS))]
    layers: list[nn.Module] = []
    width = 3
    for stage in range(trial.suggest_int("stages", 2, 4)):
        out = trial.suggest_categorical(f"width{stage}", [16, 32, 48, 64])
        kernel = trial.suggest_categorical(f"kernel{stage}", [3, 5])
        for layer in range(trial.suggest_int(f"depth{stage}", 1, 3)):
            stride = 2 if stage > 0 and layer == 0 else 1
            conv = nn.Conv2d(width, out, kernel, stride, kernel // 2, bias=False)
            layers += [conv, nn.BatchNorm2d(out), act()]
            width = out
    # As wide at the end as the teacher, ResNet-20, so that `--proxy diswot` works, too.
    layers += [nn.Conv2d(width, 64, 1, bias=False), nn.BatchNorm2d(64), act()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))


def diswot(command: str) -> None:
    """Show a command and run it."""
    print(f"$ diswot {command}", flush=True)
    main(shlex.split(command))


def example(out: Path, epochs: int, trials: int) -> None:
    """Train the teacher, search, distil."""
    training = f"--schedule onecycle --lr 0.1 --epochs {epochs}"
    diswot(
        f"distill --student resnet20 --teacher none --data digits --image-size 16 {training} "
        f"--out {out / 'teacher'}"
    )
    diswot(
        f"search --teacher resnet20 --space {__file__}:space --data digits --image-size 16 "
        f"--max-params 100K --trials {trials} --out {out / 'found'}"
    )
    weights = out / "teacher" / "student.safetensors"
    diswot(f"distill {out / 'found'} --teacher-weights {weights} {training}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/own_space"))
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--trials", type=int, default=100)
    options = parser.parse_args()
    example(options.out, options.epochs, options.trials)
