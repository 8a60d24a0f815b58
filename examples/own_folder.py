"""A folder of images of one's own, from files to a distilled student, in under three minutes.

So that nothing is needed, the folder is made of scikit-learn's digits first: grey PNG files, a
folder a class, in `train` and `test`. Each step is a command of the command line, shown before it
runs.
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from diswot.cli import main

TRAINING = "--no-flip"


def write_folder(root: Path) -> None:
    """The digits as 16 x 16 grey PNG files, every fifth for testing."""
    digits = load_digits()
    for i, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        place = root / ("test" if i % 5 == 0 else "train") / str(label)
        place.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray((pixels * (255 / 16)).astype(np.uint8))
        image.resize((16, 16), Image.Resampling.BILINEAR).save(place / f"{i:04}.png")


def run(command: str) -> None:
    """Run a command of the command line."""
    print(f"$ diswot {command}", flush=True)
    main(shlex.split(command))


def example(out: Path) -> None:
    """Write the folder, train a teacher, search, distil."""
    write_folder(out / "images")
    images = f"--data {out}/images --mean 0.3 --std 0.38"
    weights = f"{out}/teacher/student.safetensors"
    run(f"distill --student resnet20 --teacher none {images} {TRAINING} --epochs 6 "
        f"--out {out}/teacher")  # fmt: skip
    run(f"search --teacher resnet20 {images} --max-params 0.15M --out {out}/search")
    run(f"distill {out}/search --teacher-weights {weights} {TRAINING} --epochs 6")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/own_folder"))
    example(parser.parse_args().out)
