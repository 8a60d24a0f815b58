"""Sub-networks of detectors, which are traced from the images to the last layers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import MultiScaleRoIAlign

from diswot.costs.counts import count_params
from diswot.models.detectors import build_detector
from diswot.models.registry import create_teacher
from diswot.models.traceable import traceable
from diswot.spaces import subnet
from diswot.spaces.registry import Params, build_network, create_space
from diswot.spaces.trials import EnumeratingTrial
from diswot.spaces.validation import Build

BOXES = {"boxes": torch.tensor([[4.0, 6.0, 40.0, 50.0]]), "labels": torch.tensor([3])}
OWN = '''
from torch import nn
from torchvision.models.detection import FCOS
from torchvision.models.detection.anchor_utils import AnchorGenerator


def detector(num_classes):
    """One level of stride 4; the transform is torchvision's."""
    body = nn.Sequential(
        nn.Conv2d(3, 32, 3, 4, 1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, 1, 1), nn.BatchNorm2d(64), nn.ReLU(),
    )
    body.out_channels = 64
    anchors = AnchorGenerator(((4,),), ((1.0,),))
    return FCOS(body, num_classes + 1, min_size=64, max_size=64, anchor_generator=anchors)
'''


def small(heads: str) -> nn.Module:
    network = timm.create_model("test_resnet", num_classes=3)
    return build_detector(network, heads, 3, 64, "it", width=64, head_width=64, head_depth=1).eval()


def two_stages(num_classes: int) -> nn.Module:
    """Build a small Faster R-CNN of one level of stride 4."""
    body: Any = nn.Sequential(
        nn.Conv2d(3, 32, 3, 4, 1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 32, 3, 1, 1), nn.BatchNorm2d(32), nn.ReLU(),
    )  # fmt: skip
    body.out_channels = 32
    anchors = AnchorGenerator(((8, 16),), ((1.0,),))
    pool = MultiScaleRoIAlign(["0"], 4, 2)
    box_head = TwoMLPHead(32 * 4 * 4, 64)
    return FasterRCNN(
        body, min_size=64, max_size=64, rpn_anchor_generator=anchors, box_roi_pool=pool,
        box_head=box_head, box_predictor=FastRCNNPredictor(64, num_classes + 1),
    )  # fmt: skip


def sub_networks(name: str) -> tuple[nn.Module, Build, Params]:
    """Return a teacher, its space, and the parameters of the smallest; the full one is as large."""
    teacher = create_teacher(name, 3, 64)
    space = create_space(f"subnet:{name}", 3, 64)
    first, last = EnumeratingTrial(), EnumeratingTrial(last=True)
    space(first)
    assert count_params(space(last)) == count_params(teacher)
    return teacher, space, first.params


@pytest.mark.parametrize("heads", ["fcos", "retinanet", "ssdlite320_mobilenet_v3_large"])
def test_the_last_maps_are_the_outputs_of_the_heads(heads: str) -> None:
    """Sorted, since the heads of torchvision put the anchors of a map one after another."""
    name = f"torchvision:{heads}"
    model = create_teacher(name, 3, 64).eval() if heads.startswith("ssd") else small(heads)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        levels = list(model.get_submodule("backbone")(images).values())
        expected = model.get_submodule("head")(levels)
        maps = traceable(copy.copy(model))(images)
    numbers = torch.cat([each.relu().flatten() for each in maps])
    wanted = torch.cat([each.relu().flatten() for each in expected.values()])
    assert torch.allclose(numbers.sort().values, wanted.sort().values)


def test_other_networks_stay_as_they_are() -> None:
    model = create_teacher("resnet20", 3)
    assert traceable(model) is model and "forward" not in vars(model)


def test_a_users_own_detector_and_its_sub_networks(tmp_path: Path) -> None:
    """The full one is the teacher; the smallest finds boxes, and has the teacher's weights."""
    path = tmp_path / "own.py"
    path.write_text(OWN)
    name = f"{path}:detector"
    teacher, space, smallest = sub_networks(name)
    assert set(smallest.values()) == {0.25}
    model = build_network(space, smallest)
    widths = [
        model.get_parameter(f"{layer}.weight").shape[1]
        for layer in ("backbone.3", "head.regression_head.conv.0", "head.regression_head.bbox_reg")
    ]
    assert widths == [8, 16, 32]  # each of 32 groups of a norm keeps a channel
    losses = model([torch.randn(3, 64, 64)] * 2, [BOXES, BOXES])
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.parameters())
    assert set(model.eval()(torch.randn(1, 3, 64, 64))[0]) == {"boxes", "labels", "scores"}
    cut = subnet.from_teacher(teacher, smallest, name, 3, 64)
    own, given = (
        m.get_parameter("head.classification_head.cls_logits.bias") for m in (cut, teacher)
    )
    assert torch.equal(own, given)
    weight = cut.get_parameter("backbone.0.weight")
    assert torch.equal(weight, teacher.get_parameter("backbone.0.weight")[::4])


def test_the_maps_of_two_stages_are_the_outputs_of_the_heads() -> None:
    """Those of the proposals at the finest level, and those of one box, the whole image."""
    model = two_stages(3).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        levels = {"0": model.get_submodule("backbone")(images)}
        proposed = model.get_submodule("rpn.head")(list(levels.values()))
        heads = model.get_submodule("roi_heads")
        whole = [torch.tensor([[0.0, 0.0, 64.0, 64.0]])] * 2
        pooled = heads.get_submodule("box_roi_pool")(levels, whole, [(64, 64)] * 2)
        boxes = heads.get_submodule("box_predictor")(heads.get_submodule("box_head")(pooled))
        maps = traceable(copy.copy(model))(images)
    assert [m.shape for m in maps] == [m.shape for m in (*proposed[0], *proposed[1], *boxes)]
    assert all(torch.equal(m, p) for m, p in zip(maps, (*proposed[0], *proposed[1]), strict=False))


def test_sub_networks_of_a_detector_of_two_stages() -> None:
    """The full one is the teacher; the smallest trains, and has the teacher's weights."""
    name = f"{__file__}:two_stages"
    teacher, space, smallest = sub_networks(name)
    model = build_network(space, smallest)
    widths = [
        tuple(model.get_parameter(f"{layer}.weight").shape[:2])
        for layer in ("backbone.3", "rpn.head.conv.0.0", "roi_heads.box_head.fc6")
    ]
    assert widths == [(8, 8), (8, 8), (16, 8 * 4 * 4)]
    sum(model.train()([torch.randn(3, 64, 64)] * 2, [BOXES, BOXES]).values()).backward()
    assert all(p.grad is not None for p in model.parameters())
    assert set(model.eval()(torch.randn(1, 3, 64, 64))[0]) == {"boxes", "labels", "scores"}
    cut = subnet.from_teacher(teacher, smallest, name, 3, 64)
    layer = "roi_heads.box_predictor.cls_score.bias"
    assert torch.equal(cut.get_parameter(layer), teacher.get_parameter(layer))
