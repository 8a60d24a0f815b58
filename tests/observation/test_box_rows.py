"""Rows of detectors: what their matchers find, what enters the head there, and its gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from detectors import (
    ALL,
    CLASSES,
    SIZE,
    SIZES,
    Body,
    Other,
    batch,
    faster_rcnn,
    fcos,
    retinanet,
    ssd,
)
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, unfold
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOSHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSDClassificationHead
from torchvision.ops import box_iou

from diswot.errors import UserError
from diswot.observation.box_rows import MOST_POSITIVE, BoxRows
from diswot.observation.boxes import box_dicts
from diswot.observation.detectors import Matches, run_detector
from diswot.observation.modes import measuring
from diswot.observation.observe import observe, record


def made(build: Callable[[], nn.Module], seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return build()


def outputs(model: Any, images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Logits of all anchors, B x A x (K + 1), and maps that enter the head."""
    with measuring(model):
        levels = list(model.backbone(images).values())
        return model.head(levels)["cls_logits"], levels


def matched_by_hand(model: Any, levels: list[Tensor], targets: Tensor) -> Tensor:
    """Class of each anchor by the rules of RetinaNet and SSD: -1 for one without a loss.

    An anchor takes the box that it overlaps most, if by 0.5. A box has at least its best anchor: in
    RetinaNet all that are equally good, for the box that each overlaps most; in SSD one.
    """
    images = ImageList(torch.zeros(len(targets), 3, *SIZE), [SIZE] * len(targets))
    retina = isinstance(model, RetinaNet)
    found = []
    for boxes, grid in zip(box_dicts(targets), model.anchor_generator(images, levels), strict=True):
        overlaps = box_iou(boxes["boxes"], grid)
        for anchor in range(len(grid)):
            best = float(overlaps[:, anchor].max())
            label = int(boxes["labels"][overlaps[:, anchor].argmax()])
            is_best = bool((overlaps[:, anchor] == overlaps.max(1).values).any()) and retina
            if not (best >= 0.5 or is_best):
                label = -1 if retina and best >= 0.4 else 0
            found.append(label)
        if not retina:
            for box, anchor in enumerate(overlaps.argmax(1).tolist()):
                found[len(found) - len(grid) + anchor] = int(boxes["labels"][box])
    return torch.tensor(found)


@pytest.mark.parametrize("build", [retinanet, ssd])
def test_rows_are_those_of_the_matching_by_hand(build: Callable[[], nn.Module]) -> None:
    model, (images, targets) = made(build), batch()
    seen = observe(model, images, targets)
    logits, levels = outputs(model, images)
    classes = matched_by_hand(model, levels, targets)
    positive = (classes > 0).nonzero().flatten()
    count = len(positive)
    assert count > 3 and len(seen.targets) == 2 * count
    assert torch.equal(seen.targets[:count], classes[positive])
    assert not seen.targets[count:].any()
    expected = logits.flatten(0, 1)[positive]
    if build is retinanet:  # a probability for each class: no output for the background
        assert not seen.logits[:, 0].any()
        assert torch.equal(seen.logits[:count, 1:], expected[:, 1:])
    else:
        assert torch.equal(seen.logits[:count], expected)
    assert (seen.anchors[:count, 0] == positive // logits.shape[1]).all()


def test_points_of_fcos_are_those_near_the_centre_of_a_box_of_their_size() -> None:
    model, (images, targets) = made(fcos), batch()
    seen = observe(model, images, targets)
    expected = []
    for image, boxes in enumerate(box_dicts(targets)):
        for level, stride in enumerate((4, 8, 16)):
            side, least, most = 8 * 2**level, 4 * 8 * 2**level, 8 * 8 * 2**level
            for y in range(0, SIZE[0], stride):
                for x in range(0, SIZE[1], stride):
                    labels = {}
                    for (x1, y1, x2, y2), label in zip(
                        boxes["boxes"].tolist(), boxes["labels"].tolist(), strict=True
                    ):
                        off = max(abs(x - (x1 + x2) / 2), abs(y - (y1 + y2) / 2))
                        sides = (x - x1, y - y1, x2 - x, y2 - y)
                        fits = (level == 0 or max(sides) > least) and (
                            level == 2 or max(sides) < most
                        )
                        if off < 1.5 * side and min(sides) > 0 and fits:
                            labels[(x2 - x1) * (y2 - y1)] = label
                    if labels:  # the smallest box counts
                        expected.append((image, x, y, labels[min(labels)]))
    assert len(expected) > 10
    positive = seen.anchors[seen.targets > 0]
    centres = (positive[:, 1:3] + positive[:, 3:]) / 2
    found = zip(positive[:, 0], *centres.T, seen.targets, strict=False)
    assert [tuple(map(int, row)) for row in found] == expected


def weights(model: Any) -> list[Tensor]:
    """Weights of the layers that give the logits."""
    if hasattr(model, "roi_heads"):
        return [model.roi_heads.box_predictor.cls_score.weight]
    head = model.head.classification_head
    if isinstance(head, SSDClassificationHead):
        return [layer.weight for layer in head.module_list]
    return [head.cls_logits.weight]


@pytest.mark.parametrize("name", ALL)
def test_class_gradient_is_that_of_autograd(name: str) -> None:
    model, (images, targets) = made(ALL[name]), batch()
    seen = observe(model, images, targets)
    with measuring(model):
        recorded = record(model, images, targets)
    found = torch.autograd.grad(cross_entropy(recorded.logits, recorded.targets), weights(model))
    classes = CLASSES + 1
    summed = [each.flatten(1).view(-1, classes, each[0].numel()).sum(0) for each in found]
    torch.testing.assert_close(seen.class_gradient, torch.cat(summed, 1), rtol=1e-4, atol=1e-7)
    assert seen.class_gradient.shape[1] == seen.head_input.shape[1]


def test_an_unfolded_patch_enters_a_head_of_3_by_3() -> None:
    model, (images, targets) = made(fcos), batch()
    seen = observe(model, images, targets)
    with measuring(model):
        levels = list(model.backbone(images).values())
        entering = [model.head.classification_head.conv(level) for level in levels]
    patches = torch.cat([unfold(each, 3, padding=1).mT for each in entering], 1).flatten(0, 1)
    strides = torch.cat(
        [each.new_full((each.shape[2:].numel(),), i) for i, each in enumerate(levels)]
    )
    for row in (0, 5, len(seen.targets) - 1):
        image, *box = seen.anchors[row].tolist()
        level = int(torch.tensor((box[2] - box[0]) / 8).log2())
        width = levels[level].shape[3]
        stride = SIZE[1] // width
        at = int((box[1] + box[3]) / 2 / stride) * width + int((box[0] + box[2]) / 2 / stride)
        place = int(image) * len(strides) + int((strides < level).sum()) + at
        torch.testing.assert_close(seen.head_input[row], patches[place])


def test_stages_are_the_levels_and_the_last_map_is_of_the_body() -> None:
    images, targets = batch()
    for build in (fcos, retinanet, faster_rcnn):
        seen = observe(made(build), images, targets)
        assert [tuple(each.shape) for each in seen.stages] == [
            (2, 32, 16, 24),
            (2, 32, 8, 12),
            (2, 32, 4, 6),
        ]
        assert seen.strides == (4, 8, 16)
        assert seen.last.shape == (2, 16, 4, 6)
    seen = observe(made(ssd), images, targets)
    assert seen.strides == (8, 16, 32) and seen.last is seen.stages[1]


def test_a_backbone_without_levels_has_its_own_stages() -> None:
    def build() -> nn.Module:
        backbone = Body()
        backbone.out_channels = 16
        head = FCOSHead(16, 1, CLASSES + 1, num_convs=0)
        anchors = AnchorGenerator(((16,),), ((1.0,),))
        return FCOS(backbone, CLASSES + 1, head=head, anchor_generator=anchors, **SIZES)

    seen = observe(made(build), *batch())
    assert [each.shape[1] for each in seen.stages] == [4, 8, 12, 16]
    assert seen.strides == (2, 4, 8, 16) and seen.last is seen.stages[-1]
    assert seen.head_input.shape[1] == 16 * 9


def test_images_that_the_detector_resizes() -> None:
    model = made(lambda: fcos(min_size=32, max_size=48))
    seen = observe(model, *batch())
    assert seen.stages[0].shape[2:] == (8, 16)  # 32 x 48, padded to multiples of 32
    assert seen.strides == (4, 8, 16)
    assert seen.last.shape[1:] == (16, 2, 4)


@pytest.mark.parametrize("name", ALL)
def test_losses_are_the_detectors_own(name: str) -> None:
    model, (images, targets) = made(ALL[name]), batch()
    seen = observe(model, images, targets)
    with measuring(model):
        expected = run_detector(model, images, targets)
    assert seen.losses is not None and seen.losses.keys() == expected.keys()
    for part, value in seen.losses.items():
        torch.testing.assert_close(value, expected[part].detach())


@pytest.mark.parametrize("name", ALL)
def test_the_model_is_left_as_it_was_and_chance_has_no_part(name: str) -> None:
    model, (images, targets) = made(ALL[name]), batch()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    names = {module: set(vars(module)) for module in model.modules()}
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = observe(model, images, targets)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    second = observe(model, images, targets)
    assert torch.equal(first.class_gradient, second.class_gradient)
    assert torch.equal(first.logits, second.logits)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in state.items())
    assert all(set(vars(module)) == names[module] for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("name", ALL)
def test_the_observation_of_a_training_step_has_gradients(name: str) -> None:
    model = made(ALL[name])
    seen = record(model, *batch())
    assert seen.losses is not None
    total = seen.class_gradient.square().sum() + sum(seen.losses.values())
    (total + sum(stage.square().mean() for stage in seen.stages)).backward()
    first = next(p for p in model.parameters())
    assert first.grad is not None and first.grad.abs().sum() > 0


def test_many_rows_are_drawn_and_their_number_is_bounded() -> None:
    count = 3 * MOST_POSITIVE
    classes = (torch.arange(2 * count) % 2) * 2
    logits, boxes = torch.randn(2 * count, 4), torch.arange(10.0 * count).view(-1, 5)
    rows = BoxRows(Matches(logits, classes, boxes, sigmoid=False))
    assert len(rows.places) == len(set(rows.places.tolist())) == 2 * MOST_POSITIVE
    assert int((rows.classes == 2).sum()) == MOST_POSITIVE
    again = BoxRows(Matches(logits * 2, classes, boxes, sigmoid=False))
    assert torch.equal(rows.places, again.places)


def test_ignored_anchors_are_no_rows_and_without_a_positive_one_there_is_one_row() -> None:
    logits, boxes = torch.randn(5, 4), torch.zeros(5, 5)
    rows = BoxRows(Matches(logits, torch.tensor([-1, 0, 2, -1, 0]), boxes, sigmoid=False))
    assert rows.places[0] == 2 and rows.places[1] in (1, 4) and len(rows.places) == 2
    none = BoxRows(Matches(logits, torch.tensor([-1, 0, -1, -1, 0]), boxes, sigmoid=False))
    assert none.classes.tolist() == [0]


class Double(nn.Module):
    def forward(self, logits: Tensor) -> Tensor:
        return 2 * logits


@pytest.mark.parametrize("kind", ["grouped", "circular", "doubled"])
def test_another_head_has_its_class_gradient_by_autograd(kind: str) -> None:
    model, (images, targets) = made(retinanet), batch()
    head = model.head.classification_head
    outputs = head.cls_logits.out_channels
    if kind == "grouped":
        head.cls_logits = nn.Conv2d(32, outputs, 3, padding=1, groups=4)
    elif kind == "circular":
        head.cls_logits = nn.Conv2d(32, outputs, 3, padding=1, padding_mode="circular")
    else:
        head.cls_logits = nn.Sequential(head.cls_logits, Double())
    seen = observe(model, images, targets)
    with measuring(model):
        recorded = record(model, images, targets)
    weight = [p for p in head.cls_logits.parameters() if p.ndim == 4]
    (found,) = torch.autograd.grad(cross_entropy(recorded.logits, recorded.targets), weight)
    expected = found.flatten(1).view(2, CLASSES + 1, -1).sum(0)
    torch.testing.assert_close(seen.class_gradient, expected, rtol=1e-4, atol=1e-7)
    width = 32 if kind != "doubled" else 32 * 9
    assert seen.head_input.shape == (len(seen.targets), width)


def test_a_detector_without_a_matcher_has_maps_and_losses() -> None:
    seen = observe(made(Other), *batch())
    assert seen.strides == (4, 8, 16) and seen.losses is not None and "all" in seen.losses
    assert not len(seen.targets) and seen.anchors is None
    assert repr(seen).startswith("Observation(0 rows")


def test_levels_that_the_head_overwrites_are_copied() -> None:
    model, plain = made(fcos), made(fcos)

    def rectify(module: nn.Module, inputs: tuple[list[Tensor], ...]) -> None:
        for level in inputs[0]:
            level.relu_()

    model.head.register_forward_pre_hook(rectify)
    seen, expected = observe(model, *batch()), observe(plain, *batch())
    assert any((stage < 0).any() for stage in seen.stages)
    assert all(map(torch.equal, seen.stages, expected.stages))
    with pytest.raises(UserError, match="overwrites a stage's map"):
        record(model, *batch())


def test_named_maps_of_a_detector() -> None:
    layers = {
        "stages": ["backbone.body.layer0", "backbone.body.layer3"],
        "last": "backbone.body.layer2",
    }
    seen = observe(made(fcos), *batch(), layers=layers)
    assert seen.strides == (2, 16) and seen.last.shape[1] == 12


def test_boxes_of_another_shape_are_refused() -> None:
    with pytest.raises(UserError, match="boxes, float B x M x 6"):
        observe(made(fcos), batch()[0], torch.zeros(2, 3, 5))
