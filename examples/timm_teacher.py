"""A teacher from timm, from nothing to a distilled student, in under three minutes on two cores.

Scikit-learn's digits stand for your images, and a small ResNet of timm for your teacher. It is
trained on them, tested, and its best student within 0.2 million parameters is found and distilled.
Each step is a command of the command line, shown before it runs.
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from diswot.cli import main

TEACHER = "timm:resnet10t"
TRAINING = "--schedule onecycle --lr 0.1 --no-flip"


def run(command: str) -> None:
    """Run a command of the command line."""
    print(f"$ diswot {command}", flush=True)
    main(shlex.split(command))


def example(out: Path) -> None:
    """Train the teacher, test it, search, distil."""
    images = "--data digits --image-size 16"
    weights = f"--teacher-weights {out}/teacher/student.safetensors"
    run(f"distill --student {TEACHER} --teacher none {images} {TRAINING} --epochs 4 "
        f"--out {out}/teacher")  # fmt: skip
    run(f"evaluate --teacher {TEACHER} {weights} {images}")
    run(f"search --teacher {TEACHER} {images} --max-params 0.2M --out {out}/search")
    run(f"distill {out}/search {weights} {TRAINING} --epochs 8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/timm_teacher"))
    example(parser.parse_args().out)
