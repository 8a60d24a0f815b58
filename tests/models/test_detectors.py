"""Detectors on any backbone, held to torchvision's own where these have the same parts."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn
from torchvision import models

from diswot.costs.counts import count_params
from diswot.errors import UserError
from diswot.models.detectors import CoarserLevels, SameSize, build_detector
from diswot.models.preprocessing import InputConfig
from diswot.models.registry import create_teacher, input_config
from diswot.models.weightless import Weightless

BOXES = {"boxes": torch.tensor([[4.0, 6.0, 40.0, 50.0]]), "labels": torch.tensor([3])}


def small(heads: str, height: int) -> nn.Module:
    network = timm.create_model("test_resnet", num_classes=3)
    return build_detector(
        network, heads, 3, height, "test_resnet", width=32, head_width=64, head_depth=1
    )


def strides(model: nn.Module, height: int, width: int) -> list[float]:
    """Strides of the levels, measured on a padded batch."""
    images, _ = model.get_submodule("transform")([torch.zeros(3, height, width)])
    levels = model.get_submodule("backbone")(images.tensors).values()
    return [images.tensors.shape[2] / level.shape[2] for level in levels]


@pytest.mark.parametrize(
    ("name", "same"),
    [("fcos", "fcos_resnet50_fpn"), ("retinanet", "retinanet_resnet50_fpn")],
)
def test_at_800_pixels_the_detector_is_that_of_torchvision(name: str, same: str) -> None:
    """RetinaNet of torchvision has biases in its heads instead of norms."""
    with Weightless():
        model = create_teacher(f"detector:torchvision:resnet50+{name}", 5, 800)
        theirs = models.get_model(same, num_classes=6, weights_backbone=None)
        images = torch.zeros(1, 3, 64, 64)
        shapes = [[v.shape for v in each.backbone(images).values()] for each in (model, theirs)]
    norms = 2 * 4 * 256 if name == "retinanet" else 0
    assert count_params(model) == count_params(theirs) + norms
    assert model.anchor_generator.sizes == theirs.anchor_generator.sizes
    assert model.anchor_generator.aspect_ratios == theirs.anchor_generator.aspect_ratios
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("heads", ["fcos", "retinanet"])
@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(240, 320, [8, 16, 32]), (64, 64, [4, 8, 16, 32]), (320, 200, [8, 16, 32, 64])],
)
def test_levels_fit_the_images(heads: str, height: int, width: int, expected: list[int]) -> None:
    """Images of 320 pixels may have objects of 256, which are 4 strides of 64."""
    model = small(heads, height)
    assert strides(model, height, width) == expected
    losses = model([torch.randn(3, height, width)] * 2, [BOXES, BOXES])
    assert all(loss.isfinite() for loss in losses.values())
    found = model.eval()(torch.randn(2, 3, height, width))
    assert [set(each) for each in found] == [{"boxes", "labels", "scores"}] * 2


def test_each_box_of_any_size_has_a_point() -> None:
    """FCOS gives a level to objects of each size, without a gap between levels."""
    model = small("fcos", 64)
    matched: list[torch.Tensor] = []
    head = model.get_submodule("head")
    compute = head.compute_loss
    head.compute_loss = lambda *given: (matched.append(given[3][0]), compute(*given))[1]
    for side in (6, 12, 20, 40, 60):
        box = torch.tensor([[2.0, 2.0, 2.0 + side, 2.0 + side]])
        model([torch.zeros(3, 64, 64)], [{"boxes": box, "labels": torch.tensor([1])}])
        assert (matched[-1] == 0).any()


def test_two_coarser_levels_are_those_of_torchvision() -> None:
    theirs = models.detection.fcos.LastLevelP6P7(8, 8)
    ours = CoarserLevels(8, 2)
    values = theirs.state_dict().values()
    ours.load_state_dict(dict(zip(ours.state_dict(), values, strict=True)))
    level = torch.randn(1, 8, 9, 7)
    expected, _ = theirs([level], [level], ["p5"])
    found, names = ours([level], [level], ["p5"])
    assert len(found) == len(names) == 3
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_images_are_padded_and_nothing_else() -> None:
    image = torch.randn(3, 33, 64)
    boxes = BOXES["boxes"]
    batch, targets = SameSize()([image, image[:, :20]], [{"boxes": boxes}, {"boxes": boxes}])
    assert batch.tensors.shape == (2, 3, 64, 64)
    assert torch.equal(batch.tensors[0, :, :33], image) and not batch.tensors[0, :, 33:].any()
    assert batch.image_sizes == [(33, 64), (20, 64)]
    assert all(torch.equal(each["boxes"], boxes) for each in targets)


def test_the_look_of_images_is_that_of_the_classifier() -> None:
    """Its weights are those of 1,000 classes, for which no detector was trained."""
    imagenet = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert input_config("detector:resnet20+fcos") == InputConfig()
    found = input_config("detector:torchvision:resnet18+fcos", True)
    assert found == InputConfig(1000, None, *imagenet)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("detector:resnet20", "detector:resnet20 has no plus; such as detector:timm:resnet18"),
        ("detector:resnet20+yolo", "unknown detector 'yolo'; known: fcos, retinanet"),
        ("detector:resnet21+fcos", "unknown teacher 'resnet21'"),
        ("detector:timm:vit_tiny_patch16_224+fcos", "has no two maps of different sizes"),
    ],
)
def test_wrong_names(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        create_teacher(name, 3, 64)
