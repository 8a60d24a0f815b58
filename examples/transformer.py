"""A transformer for a transformer, searched and distilled: about two minutes on a CPU.

The teacher is a vision transformer of DeiT-S's width for the digits of scikit-learn, 8 x 8 pixels
each, the candidates are those of the space `autoformer`, whose layers differ in heads and MLP
ratio. Each step is a command of the command line, shown as it runs. docs/transformer.md tells
more.
"""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path
from typing import Any

from timm.models.vision_transformer import VisionTransformer

from diswot.cli import main

IMAGES = "--data digits --image-size 8"
TRAINING = "--batch-size 16 --crop 1"  # the recipe is `transformer`, the default of transformers


def teacher(classes: int, image_size: int = 8) -> VisionTransformer:
    """A vision transformer as wide as DeiT-S, six layers deep, for small images."""
    return VisionTransformer(
        image_size,
        patch_size=2,
        num_classes=classes,
        embed_dim=384,
        depth=6,
        num_heads=6,
        class_token=False,
        global_pool="avg",
    )


def diswot(command: str) -> None:
    """Show a command and run it."""
    print(f"$ diswot {command}", flush=True)
    main(shlex.split(command))


def example(out: Path, epochs: int, trials: int) -> dict[str, Any]:
    """Train the teacher, search, distil; what was found."""
    by_name = f"{__file__}:teacher"
    diswot(
        f"distill --student {by_name} --teacher none {IMAGES} {TRAINING} --epochs {epochs} "
        f"--out {out / 'teacher'}"
    )
    diswot(
        f"search --teacher {by_name} --space autoformer {IMAGES} --max-params 6M "
        f"--trials {trials} --out {out / 'found'}"
    )
    weights = out / "teacher" / "student.safetensors"
    diswot(f"distill {out / 'found'} --teacher-weights {weights} {TRAINING} --epochs {epochs}")
    found: dict[str, Any] = json.loads((out / "found" / "found.json").read_text())
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/transformer"))
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--trials", type=int, default=20)
    options = parser.parse_args()
    example(options.out, options.epochs, options.trials)
