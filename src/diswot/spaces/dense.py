"""The space of networks for segmentation: a backbone of any space under a decoder.

`dense:BACKBONE+DECODER`, such as `dense:mobilenet+lraspp`. The choices are those of the backbone's
space and `decoder_width`. The backbone's classifier is removed, and the decoder reads the maps that
end its resolution stages.

Letters: B images, K classes, C channels, H x W pixels.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from optuna.trial import BaseTrial
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.models.segmentation import LRASPP
from torchvision.ops import FeaturePyramidNetwork

from diswot.models.backbones import StageEnd, StageMaps, remove_classifier
from diswot.spaces.registry import NamedSpace, backbone_space

WIDTHS = (32, 64, 128)  # of the decoder
_FINEST, _LOW = 4, 8  # strides of the finest map of the pyramid, and of the low map of LR-ASPP


class PyramidSegmenter(nn.Module):
    """A feature pyramid whose levels are enlarged and summed before a linear classifier.

    The semantic branch of Kirillov et al., "Panoptic feature pyramid networks", CVPR 2019, without
    its convolutions after the pyramid. The backbone gives the maps of its stages by name.
    """

    def __init__(
        self, backbone: nn.Module, channels: Sequence[int], width: int, num_classes: int
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pyramid = FeaturePyramidNetwork(list(channels), width)
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the logits as `out`, B x K x H x W."""
        levels = list(self.pyramid(OrderedDict(self.backbone(images))).values())
        size = levels[0].shape[2:]
        summed = levels[0] + sum(_enlarged(level, size) for level in levels[1:])
        return {"out": _enlarged(self.classifier(summed), images.shape[2:])}


def _enlarged(maps: Tensor, size: Sequence[int]) -> Tensor:
    return interpolate(maps, list(size), mode="bilinear", align_corners=False)


def _lraspp(
    network: nn.Module, stages: Sequence[StageEnd], width: int, num_classes: int
) -> nn.Module:
    """LR-ASPP, Howard et al., "Searching for MobileNetV3", ICCV 2019, as torchvision has it."""
    high = stages[-1]
    fine = [stage for stage in stages[:-1] if stage.stride <= _LOW]
    low = (fine or stages[:-1] or stages)[-1]
    maps = StageMaps(network, {"low": low.name, "high": high.name})
    model: nn.Module = LRASPP(maps, low.channels, high.channels, num_classes, width)
    return model


def _fpn(network: nn.Module, stages: Sequence[StageEnd], width: int, num_classes: int) -> nn.Module:
    coarse = [stage for stage in stages if stage.stride >= _FINEST] or stages[-1:]
    maps = StageMaps(network, {stage.name.replace(".", "_"): stage.name for stage in coarse})
    return PyramidSegmenter(maps, [stage.channels for stage in coarse], width, num_classes)


DECODERS: dict[str, Callable[..., nn.Module]] = {"lraspp": _lraspp, "fpn": _fpn}


def check(parts: str, num_classes: int, img_size: int) -> dict[str, Any]:
    """Return the space of the backbone and the decoder in the text after `dense:`."""
    return backbone_space(parts, "decoder", DECODERS, "dense", num_classes, img_size)


def build(
    trial: BaseTrial,
    backbone: NamedSpace,
    decoder: str,
    num_classes: int = 21,
    img_size: int = 224,
) -> nn.Module:
    """Build a network for segmentation: the choices of the backbone, and `decoder_width`.

    Raises:
        UserError: The backbone has one map alone, or its classifier is no linear layer.
    """
    network = backbone(trial)
    width = trial.suggest_categorical("decoder_width", WIDTHS)
    stages = remove_classifier(network, img_size, backbone.name)
    return DECODERS[decoder](network, stages, width, num_classes)
