"""Detectors of torchvision for images of any size, on any backbone.

In training mode such a detector maps a list of images and their boxes to a dict of losses. In
evaluation mode it maps a list of images to the boxes that it finds, one dict an image. It has K + 1
class outputs, and output 0 is the background.

Letters: B images, K classes, C channels, h x w positions of a map, H x W pixels.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import relu
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOSHead
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

from diswot.models.backbones import StageMaps, remove_classifier

WIDTH, DEPTH = 256, 4  # of torchvision's pyramids and heads
_SMALL = 160  # pixels; smaller images have a level of stride 4
_DIVISIBLE = 32  # height and width of a batch
_GROUPS = 32  # of the group norms in heads
_LEAST_SCORE = 0.05  # of a box that is found


class SameSize(GeneralizedRCNNTransform):  # type: ignore[misc]
    """A transform that keeps size and values of normalised images, and pads them in a batch.

    Height and width are padded with zeros to a multiple of `size_divisible`.
    """

    def __init__(self, size_divisible: int = _DIVISIBLE) -> None:
        super().__init__(1, 1, [0.0] * 3, [1.0] * 3, size_divisible)

    def resize(
        self, image: Tensor, target: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Return image and target as they are."""
        return image, target

    def __repr__(self) -> str:
        return f"SameSize({self.size_divisible})"


def at_own_size(detector: Any) -> nn.Module:
    """Return a detector of torchvision that takes normalised images and does not resize them.

    The detector is changed in place.
    """
    detector.transform = SameSize(detector.transform.size_divisible)
    model: nn.Module = detector
    return model


def padded_height(img_size: int) -> int:
    """Return the height of the batches that a detector makes of images of a height in pixels."""
    return math.ceil(img_size / _DIVISIBLE) * _DIVISIBLE


class CoarserLevels(ExtraFPNBlock):  # type: ignore[misc]
    """Levels of a pyramid beyond the backbone's, each half as high and wide as the one before.

    Two levels are P6 and P7 of RetinaNet, Lin et al., ICCV 2017, as torchvision has them.
    """

    def __init__(self, width: int, levels: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList()
        for _ in range(levels):
            convolution: Any = nn.Conv2d(width, width, 3, 2, 1)
            nn.init.kaiming_uniform_(convolution.weight, a=1)
            nn.init.zeros_(convolution.bias)
            self.convolutions.append(convolution)

    def forward(
        self, results: list[Tensor], maps: list[Tensor], names: list[str]
    ) -> tuple[list[Tensor], list[str]]:
        """Return the levels of a pyramid and their names, with the coarser ones at the end."""
        for number, convolution in enumerate(self.convolutions):
            results.append(convolution(relu(results[-1]) if number else results[-1]))
            names.append(f"coarser{number}")
        return results, names


class PyramidBackbone(nn.Module):
    """A backbone under a feature pyramid, as torchvision's detectors take it.

    The body gives the maps of its stages by name; all levels have `out_channels`.

    Lin et al., "Feature pyramid networks for object detection", CVPR 2017.
    """

    def __init__(self, body: nn.Module, channels: Sequence[int], width: int, coarser: int) -> None:
        super().__init__()
        self.body, self.out_channels = body, width
        more = CoarserLevels(width, coarser) if coarser else None
        self.fpn = FeaturePyramidNetwork(list(channels), width, more)

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Return the levels by name, B x C x h x w each, from the largest to the smallest."""
        levels: OrderedDict[str, Tensor] = self.fpn(OrderedDict(self.body(images)))
        return levels


def build_detector(
    network: nn.Module,
    heads: str,
    num_classes: int,
    img_size: int,
    name: str,
    *,
    width: int = WIDTH,
    head_width: int = WIDTH,
    head_depth: int = DEPTH,
) -> nn.Module:
    """Build a detector on the stages of a classifier.

    The pyramid begins at a stride of 8, and of 4 if images are smaller than 160 pixels. It has
    coarser levels than the classifier while objects of 4 strides are smaller than the images: FCOS
    finds objects of 4 to 8 strides on a level, and RetinaNet has anchors of 4 to 6 strides. On
    images of 800 pixels the levels are those of torchvision, P3 to P7.

    Args:
        network: The classifier, which is changed in place; it may be on the meta device.
        heads: A key of `HEADS`.
        num_classes: Number of classes, K.
        img_size: Height of the images in pixels.
        name: Name of the classifier or of its space, for errors.
        width: Channels of the pyramid. Default: 256.
        head_width: Channels inside the heads, a multiple of 32. Default: 256.
        head_depth: Convolutions of each head before its last, at most 4. Default: 4.

    Raises:
        UserError: The classifier has one map alone, or its last layer is not linear.
    """
    found = remove_classifier(network, padded_height(img_size), name)
    finest = 4 if img_size < _SMALL else 8
    stages = [stage for stage in found if stage.stride >= finest] or found[-1:]
    strides = [round(stage.stride) for stage in stages]
    while 4 * (coarser := 2 * strides[-1]) < img_size:
        strides.append(coarser)
    body = StageMaps(network, {stage.name.replace(".", "_"): stage.name for stage in stages})
    channels = [stage.channels for stage in stages]
    backbone = PyramidBackbone(body, channels, width, len(strides) - len(stages))
    detector = HEADS[heads](backbone, strides, num_classes + 1, head_width, head_depth)
    return at_own_size(detector)


def _fcos(
    backbone: PyramidBackbone, strides: Sequence[int], outputs: int, width: int, depth: int
) -> nn.Module:
    """FCOS, Tian et al., ICCV 2019, whose points are as far apart as the strides."""
    anchors = AnchorGenerator(tuple((stride,) for stride in strides), ((1.0,),) * len(strides))
    head = _entering(FCOSHead(width, 1, outputs, depth), backbone.out_channels)
    model: nn.Module = FCOS(
        backbone, outputs, anchor_generator=anchors, head=head, score_thresh=_LEAST_SCORE
    )
    return model


def _retinanet(
    backbone: PyramidBackbone, strides: Sequence[int], outputs: int, width: int, depth: int
) -> nn.Module:
    """RetinaNet, Lin et al., ICCV 2017, with group norms in its heads as torchvision's second."""
    sizes = tuple(tuple(int(4 * s * 2 ** (third / 3)) for third in range(3)) for s in strides)
    anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(strides))
    head: Any = RetinaNetHead(width, 9, outputs, partial(nn.GroupNorm, _GROUPS))
    for branch in (head.classification_head, head.regression_head):
        branch.conv = branch.conv[:depth]
    model: nn.Module = RetinaNet(
        backbone,
        outputs,
        anchor_generator=anchors,
        head=_entering(head, backbone.out_channels),
        score_thresh=_LEAST_SCORE,
    )
    return model


HEADS: dict[str, Callable[..., nn.Module]] = {"fcos": _fcos, "retinanet": _retinanet}


def _entering(head: Any, width: int) -> nn.Module:
    """Return a head whose first convolutions take maps of a width."""
    for branch in (head.classification_head, head.regression_head):
        first = branch.conv[0]
        holder: Any = first if isinstance(first, nn.Sequential) else branch.conv
        if holder[0].in_channels != width:
            bias = holder[0].bias is not None
            holder[0] = nn.Conv2d(width, holder[0].out_channels, 3, padding=1, bias=bias)
            nn.init.normal_(holder[0].weight, std=0.01)
            if bias:
                nn.init.zeros_(holder[0].bias)
    model: nn.Module = head
    return model
