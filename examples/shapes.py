"""Draw a small data set for segmentation: `python examples/shapes.py DIR`.

Each image has a disc and a square on noisy ground, and a mask with the class of each pixel.
`examples/shapes.py:teacher` is a network for it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from torch import nn

import diswot

COLOURS = {"ground": (40, 40, 40), "disc": (220, 40, 40), "square": (40, 80, 220)}


def draw_shape(random: np.random.Generator, size: tuple[int, int]) -> tuple[Image.Image, ...]:
    """Draw a disc and a square at random places; return the image and its mask."""
    image, mask = Image.new("RGB", size, COLOURS["ground"]), Image.new("L", size)
    for label, name in ((2, "square"), (1, "disc")):
        side = int(random.integers(size[0] // 4, size[0] * 7 // 16))
        x, y = (int(random.integers(0, extent - side)) for extent in size)
        box = (x, y, x + side, y + side)
        for canvas, colour in ((image, COLOURS[name]), (mask, label)):
            pen = ImageDraw.Draw(canvas)
            (pen.ellipse if name == "disc" else pen.rectangle)(box, fill=colour)
    noise = random.normal(0, 12, (size[1], size[0], 3))
    pixels = (np.asarray(image) + noise).clip(0, 255).astype(np.uint8)
    return Image.fromarray(pixels), mask


def shapes(root: Path, train: int = 40, test: int = 10, size: tuple[int, int] = (32, 24)) -> str:
    """Write a data set of shapes with a training and a test split; return its path."""
    random = np.random.default_rng(0)
    for split, count in (("train", train), ("test", test)):
        for name in ("images", "masks"):
            (root / split / name).mkdir(parents=True)
        for number in range(count):
            image, mask = draw_shape(random, size)
            image.save(root / split / "images" / f"{number}.png")
            mask.save(root / split / "masks" / f"{number}.png")
    (root / "classes.txt").write_text("\n".join(COLOURS))
    return str(root)


def teacher(num_classes: int, img_size: int) -> nn.Module:
    """Build a ResNet-20 under a feature pyramid."""
    params = {"blocks1": 3, "blocks2": 3, "blocks3": 3, "decoder_width": 64}
    space = diswot.create_space("dense:s0+fpn", num_classes, img_size)
    return diswot.build_network(space, params)


if __name__ == "__main__":
    print(shapes(Path(sys.argv[1]), train=200, test=50, size=(64, 48)))
