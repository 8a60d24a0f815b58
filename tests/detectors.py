"""Small detectors of torchvision's classes, and batches of boxes."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.fcos import FCOSHead
from torchvision.models.detection.ssd import SSD
from torchvision.ops import MultiScaleRoIAlign

CLASSES, SIZE = 3, (64, 96)
UNCHANGED = {"image_mean": (0.0,) * 3, "image_std": (1.0,) * 3}
SIZES = {"min_size": SIZE[0], "max_size": SIZE[1]} | UNCHANGED


def block(inputs: int, outputs: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class Body(nn.Sequential):
    """Four stages, each of half the size of the one before."""

    def __init__(self, width: int = 4) -> None:
        widths = (3, width, 2 * width, 3 * width, 4 * width)
        blocks = {f"layer{i}": block(*pair) for i, pair in enumerate(pairwise(widths))}
        super().__init__(OrderedDict(blocks))


def pyramid(width: int = 4, channels: int = 32) -> BackboneWithFPN:
    """Three levels, of strides 4, 8 and 16."""
    levels = {f"layer{i}": str(i) for i in (1, 2, 3)}
    widths = [2 * width, 3 * width, 4 * width]
    made = BackboneWithFPN(Body(width), levels, widths, channels)
    made.fpn.extra_blocks = None
    return made


def anchors(count: int = 1, levels: int = 3) -> AnchorGenerator:
    sizes = tuple((8 * 2**level,) for level in range(levels))
    return AnchorGenerator(sizes, ((0.5, 1.0, 2.0)[-count:] if count > 1 else (1.0,),) * levels)


def fcos(width: int = 4, **options: Any) -> FCOS:
    head = FCOSHead(32, 1, CLASSES + 1, num_convs=1)
    made = FCOS(
        pyramid(width), CLASSES + 1, anchor_generator=anchors(), head=head, **SIZES | options
    )
    return made


def retinanet(width: int = 4) -> RetinaNet:
    return RetinaNet(pyramid(width), CLASSES + 1, anchor_generator=anchors(2), **SIZES)


class Levels(nn.Module):
    """Two levels of a backbone, and one of an extra block, as the extractors of SSD have them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Sequential(block(3, width), block(width, width), block(width, 2 * width)),
            block(2 * width, 3 * width),
        )
        self.extra = nn.ModuleList([block(3 * width, 2 * width)])
        self.out_channels = [2 * width, 3 * width, 2 * width]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        found = []
        for part in (*self.features, *self.extra):
            images = part(images)
            found.append(images)
        return OrderedDict((str(i), each) for i, each in enumerate(found))


def ssd(width: int = 4) -> SSD:
    boxes = DefaultBoxGenerator([[2], [2], [2]])
    return SSD(Levels(width), boxes, SIZE[::-1], CLASSES + 1, **UNCHANGED)  # width, height


def faster_rcnn(width: int = 4) -> FasterRCNN:
    pool = MultiScaleRoIAlign(["0", "1", "2"], 3, 2)
    return FasterRCNN(
        pyramid(width),
        rpn_anchor_generator=anchors(2),
        box_roi_pool=pool,
        box_head=TwoMLPHead(32 * 9, 16),
        box_predictor=FastRCNNPredictor(16, CLASSES + 1),
        rpn_pre_nms_top_n_train=100,
        rpn_post_nms_top_n_train=50,
        box_batch_size_per_image=32,
        **SIZES,
    )


class Other(nn.Module):
    """A detector that follows the convention, and has no matcher of torchvision's."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.backbone = pyramid(width)

    def forward(self, images: list[Tensor], targets: Any = None) -> Any:
        levels = self.backbone(torch.stack(images))
        return {"all": sum(level.mean() for level in levels.values())} if self.training else []


ONE_STAGE = {"fcos": fcos, "retinanet": retinanet, "ssd": ssd}
ALL = ONE_STAGE | {"faster_rcnn": faster_rcnn}


def batch(images: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noise, and two boxes an image with one row of padding; the last image's second is a crowd."""
    random = torch.Generator().manual_seed(seed)
    targets = torch.zeros(images, 3, 6)
    targets[..., 4] = -1
    for image in range(images):
        shift = 4.0 * (image % 3)
        first = (4 + shift, 6, 20 + shift, 30, image % CLASSES, 0)
        targets[image, 0] = torch.tensor(first)
        targets[image, 1] = torch.tensor((40 - shift, 8, 88 - shift, 56, (image + 1) % CLASSES, 0))
    targets[-1, 1, 5] = 1
    return torch.randn(images, 3, *SIZE, generator=random), targets
