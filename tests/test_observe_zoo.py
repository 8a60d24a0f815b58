from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import timm
import torch
import torchvision
import toys
from reference import class_gradient
from torch import nn
from toys import batch, seeded

from diswot.observation.observe import observe

CLASSES = 7


@dataclass(frozen=True)
class Row:
    """A known network: channels and stride of each stage, and its classifier.

    `pooled` tells whether the classifier sees the mean of the last map, as it is. `sized` names
    the option that sets the resolution where it must be known beforehand.
    """

    name: str
    stages: tuple[tuple[int, int], ...]
    width: int
    classifier: str
    pooled: bool = False
    sized: str = ""
    pixels: tuple[int, ...] = (32, 64, 224)


ROWS = (
    Row(
        "torchvision:resnet18",
        ((64, 2), (64, 4), (128, 8), (256, 16), (512, 32)),
        512,
        "fc",
        pooled=True,
    ),
    Row(
        "torchvision:mobilenet_v3_small",
        ((16, 2), (16, 4), (24, 8), (48, 16), (576, 32)),
        1024,
        "classifier.3",
    ),
    Row(
        "torchvision:efficientnet_b0",
        ((16, 2), (24, 4), (40, 8), (112, 16), (1280, 32)),
        1280,
        "classifier.1",
        pooled=True,
    ),
    Row(
        "torchvision:convnext_tiny",
        ((96, 4), (192, 8), (384, 16), (768, 32)),
        768,
        "classifier.2",
    ),
    Row(
        "torchvision:vit_b_16",
        ((768, 16),),
        768,
        "heads.head",
        sized="image_size",
    ),
    Row(
        "torchvision:swin_t",
        ((96, 4), (192, 8), (384, 16), (768, 32)),
        768,
        "head",
        pooled=True,
    ),
    Row(
        "timm:densenet121",
        ((64, 2), (256, 4), (512, 8), (1024, 16), (1024, 32)),
        1024,
        "classifier",
        pixels=(64, 224),
    ),
    Row(
        "timm:resnet50",
        ((64, 2), (256, 4), (512, 8), (1024, 16), (2048, 32)),
        2048,
        "fc",
        pooled=True,
    ),
    Row(
        "timm:mobilenetv3_small_100",
        ((16, 2), (16, 4), (24, 8), (48, 16), (576, 32)),
        1024,
        "classifier",
    ),
    Row(
        "timm:efficientformer_l1",
        ((24, 2), (48, 4), (96, 8), (224, 16), (448, 32)),
        448,
        "head_dist",
        pooled=True,
        pixels=(224,),  # its attention knows one resolution
    ),
    Row(
        "timm:efficientformerv2_s0",
        ((16, 2), (32, 4), (48, 8), (96, 16), (176, 32)),
        176,
        "head_dist",
        pooled=True,
        pixels=(224,),
    ),
    Row(
        "timm:mvitv2_tiny",  # its stages return tuples
        ((96, 4), (192, 8), (384, 16), (768, 32)),
        768,
        "head.fc",
        pooled=True,
        sized="img_size",
        pixels=(64, 224),
    ),
    Row("timm:deit_tiny_patch16_224", ((192, 16),), 192, "head", sized="img_size"),
    Row(
        "timm:levit_128s",
        ((16, 2), (32, 4), (64, 8), (128, 16), (256, 32), (384, 64)),
        384,
        "head_dist.linear",
        sized="img_size",
    ),
    Row(
        "a user's nested model",
        ((5, 1), (6, 2), (7, 4)),
        7,
        "head.linear",
    ),
    Row(
        "timm:mobilevit_xs",
        ((32, 2), (48, 4), (64, 8), (80, 16), (384, 32)),
        384,
        "head.fc",
        pooled=True,
    ),
)


def cases() -> Iterator[object]:
    for row in ROWS:
        for pixels in row.pixels:
            between = pixels == 64 and row.pixels[0] < pixels  # of a small and a large image
            marks = pytest.mark.slow if between else ()
            yield pytest.param(row, pixels, id=f"{row.name}-{pixels}", marks=marks)


def build(row: Row, pixels: int) -> nn.Module:
    library, _, name = row.name.partition(":")
    options = {row.sized: pixels} if row.sized else {}
    if not name:
        model = toys.Nested()
        model.head.linear = nn.Linear(row.width, CLASSES)
        return model
    if library == "timm":
        return timm.create_model(name, pretrained=False, num_classes=CLASSES, **options)
    return torchvision.models.get_model(name, weights=None, num_classes=CLASSES, **options)


def expected_stages(row: Row, pixels: int) -> list[tuple[int, int, int]]:
    """One map a resolution, the later where two strides leave as many pixels."""
    channels = {-(-pixels // stride): channels for channels, stride in row.stages}
    return [(count, side, side) for side, count in channels.items()]


@pytest.mark.parametrize(("row", "pixels"), list(cases()))
def test_shapes_and_class_gradient(row: Row, pixels: int) -> None:
    images, labels = batch(2, pixels, CLASSES)
    model = seeded(lambda: build(row, pixels))
    seen = observe(model, images, labels)

    stages = expected_stages(row, pixels)
    assert [tuple(stage.shape) for stage in seen.stages] == [(2, *stage) for stage in stages]
    assert seen.last is seen.stages[-1]
    assert seen.head_input.shape == (2, row.width)
    assert seen.logits.shape == (2, CLASSES)
    assert seen.class_gradient.shape == (CLASSES, row.width)
    if row.pooled:
        torch.testing.assert_close(seen.last.mean((2, 3)), seen.head_input)

    expected = class_gradient(model, images, labels, row.classifier)
    largest = float(expected.abs().max())
    assert float((seen.class_gradient - expected).abs().max()) <= 1e-5 * largest


@pytest.mark.parametrize("name", ["timm:mobilenetv3_small_100", "timm:levit_128s"])
def test_a_second_look_sees_the_same_bits_in_any_mode(name: str) -> None:
    row = next(row for row in ROWS if row.name == name)
    images, labels = batch(2, 32, CLASSES)
    model = seeded(lambda: build(row, 32)).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    first = observe(model, images, labels)
    second = observe(model.eval(), images, labels)
    assert torch.equal(first.logits, second.logits)
    assert torch.equal(first.class_gradient, second.class_gradient)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
