"""Draw a small data set for detection: `python examples/boxes.py DIR`.

Each image has up to three discs and squares on noisy ground, and a file of XML with their boxes, in
the folders of Pascal VOC. `examples/boxes.py:teacher` is a network for it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from torch import nn

import diswot

COLOURS = {"disc": (220, 40, 40), "square": (40, 80, 220)}
GROUND = (40, 40, 40)

Shape = tuple[str, tuple[int, int, int, int]]  # name, and x1, y1, x2, y2 in pixels from 0


def draw_shapes(
    random: np.random.Generator, size: tuple[int, int], most: int = 3
) -> tuple[Image.Image, list[Shape]]:
    """Draw discs and squares that do not touch at random places; return image and boxes."""
    image, shapes = Image.new("RGB", size, GROUND), list[Shape]()
    pen = ImageDraw.Draw(image)
    for name in random.choice(list(COLOURS), int(random.integers(1, most + 1))):
        side = int(random.integers(size[0] // 6, size[0] // 3))
        left, top = (int(random.integers(0, extent - side)) for extent in size)
        right, bottom = left + side, top + side
        apart = [
            left > x2 or right < x1 or top > y2 or bottom < y1 for _, (x1, y1, x2, y2) in shapes
        ]
        if all(apart):
            paint = pen.ellipse if name == "disc" else pen.rectangle
            paint((left, top, right - 1, bottom - 1), fill=COLOURS[name])
            shapes.append((str(name), (left, top, right, bottom)))
    noise = random.normal(0, 12, (size[1], size[0], 3))
    pixels = (np.asarray(image) + noise).clip(0, 255).astype(np.uint8)
    return Image.fromarray(pixels), shapes


def annotation(shapes: list[Shape], size: tuple[int, int]) -> str:
    """Return the XML of Pascal VOC, whose pixels count from 1 and whose last one is inside."""
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{left + 1}</xmin><ymin>{top + 1}</ymin>"
        f"<xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>"
        for name, (left, top, right, bottom) in shapes
    )
    sides = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    return f"<annotation>{sides}{objects}</annotation>"


def boxes(root: Path, train: int = 40, test: int = 10, size: tuple[int, int] = (64, 48)) -> str:
    """Write a data set of shapes and their boxes with a training and a test split."""
    random = np.random.default_rng(0)
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    for split, count in (("train", train), ("test", test)):
        stems = [f"{split}{number}" for number in range(count)]
        for stem in stems:
            image, shapes = draw_shapes(random, size)
            image.save(root / "JPEGImages" / f"{stem}.png")
            (root / "Annotations" / f"{stem}.xml").write_text(annotation(shapes, size))
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(stems))
    return str(root)


def teacher(num_classes: int, img_size: int) -> nn.Module:
    """Build FCOS on a small ResNet."""
    params = {"blocks1": 1, "blocks2": 1, "blocks3": 3}
    heads = {"pyramid_width": 64, "head_width": 64, "head_depth": 1}
    space = diswot.create_space("detector:s0+fcos", num_classes, img_size)
    return diswot.build_network(space, {**params, **heads})


if __name__ == "__main__":
    print(boxes(Path(sys.argv[1]), train=200, test=50))
