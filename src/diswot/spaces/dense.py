"""The space of networks for segmentation: a backbone of any space under a decoder.

`dense:BACKBONE+DECODER`, such as `dense:mobilenet+lraspp`. The choices are those of the backbone's
space and `decoder_width`. The backbone's classifier is removed, and the decoder reads the maps that
end its resolution stages.

Letters: B images, K classes, C channels, H x W pixels.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from optuna.trial import BaseTrial
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.models.segmentation import LRASPP
from torchvision.ops import FeaturePyramidNetwork

from diswot.errors import UserError, unknown
from diswot.observation.hooks import Trace, run
from diswot.observation.modes import measuring
from diswot.spaces.registry import SPACES, create_space
from diswot.utils import user_code

WIDTHS = (32, 64, 128)  # of the decoder
_FINEST, _LOW = 4, 8  # strides of the finest map of the pyramid, and of the low map of LR-ASPP


class StageMaps(nn.Module):
    """A classifier without its last layer, as the maps that end its stages.

    Attributes:
        network: The network.
        names: Modules that give the maps, by their names in the result.
    """

    def __init__(self, network: nn.Module, names: Mapping[str, str]) -> None:
        super().__init__()
        self.network, self.names = network, dict(names)
        self._maps: dict[str, Tensor] = {}
        for place, name in self.names.items():
            network.get_submodule(name).register_forward_hook(partial(self._keep, place))

    def _keep(self, place: str, module: nn.Module, inputs: object, output: Any) -> None:
        self._maps[place] = output

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the maps by name, B x C x h x w each, from the largest to the smallest."""
        self._maps.clear()
        self.network(images)
        maps = {place: self._maps[place] for place in self.names}
        self._maps.clear()
        return maps


class PyramidSegmenter(nn.Module):
    """A feature pyramid whose levels are enlarged and summed before a linear classifier.

    The semantic branch of Kirillov et al., "Panoptic feature pyramid networks", CVPR 2019, without
    its convolutions after the pyramid.

    Attributes:
        backbone: Gives the maps of its stages by name.
        pyramid: The feature pyramid.
        classifier: Linear map of each position.
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


def _lraspp(network: nn.Module, stages: Sequence[Stage], width: int, num_classes: int) -> nn.Module:
    """LR-ASPP, Howard et al., "Searching for MobileNetV3", ICCV 2019, as torchvision has it."""
    high = stages[-1]
    fine = [stage for stage in stages[:-1] if stage.stride <= _LOW]
    low = (fine or stages[:-1] or stages)[-1]
    maps = StageMaps(network, {"low": low.name, "high": high.name})
    model: nn.Module = LRASPP(maps, low.channels, high.channels, num_classes, width)
    return model


def _fpn(network: nn.Module, stages: Sequence[Stage], width: int, num_classes: int) -> nn.Module:
    coarse = [stage for stage in stages if stage.stride >= _FINEST] or stages[-1:]
    maps = StageMaps(network, {stage.name.replace(".", "_"): stage.name for stage in coarse})
    return PyramidSegmenter(maps, [stage.channels for stage in coarse], width, num_classes)


DECODERS: dict[str, Callable[..., nn.Module]] = {"lraspp": _lraspp, "fpn": _fpn}


class Stage(NamedTuple):
    """The module that ends a resolution stage.

    Attributes:
        name: Name of the module.
        channels: Channels of its map.
        stride: Height of the images over that of the map.
    """

    name: str
    channels: int
    stride: float


def check(parts: str, num_classes: int, img_size: int) -> None:
    """Check the text after `dense:`.

    Raises:
        UserError: It does not name a space and a decoder.
    """
    backbone, decoder = split(parts)
    if decoder not in DECODERS:
        raise unknown("decoder", decoder, DECODERS)
    if backbone.partition(":")[0] not in SPACES and not user_code.is_spec(backbone):
        raise unknown("space", backbone, SPACES)
    create_space(backbone, num_classes, img_size)


def split(parts: str) -> tuple[str, str]:
    """Return the names of the backbone's space and of the decoder."""
    backbone, plus, decoder = parts.rpartition("+")
    if not plus:
        raise UserError(f"dense:{parts} names no decoder; such as dense:mobilenet+lraspp")
    return backbone, decoder


def build(trial: BaseTrial, parts: str, num_classes: int = 21, img_size: int = 224) -> nn.Module:
    """Build a network for segmentation: the choices of the backbone, and `decoder_width`.

    Args:
        trial: Chooses the backbone and the width of the decoder.
        parts: Name of the backbone's space, a plus, and the name of the decoder.
        num_classes: Number of classes, K.
        img_size: Height of the images in pixels.

    Raises:
        UserError: The backbone has one map alone, or its classifier is no linear layer.
    """
    backbone, decoder = split(parts)
    network = create_space(backbone, num_classes, img_size)(trial)
    width = trial.suggest_categorical("decoder_width", WIDTHS)
    return DECODERS[decoder](network, _stages(network, img_size, backbone), width, num_classes)


def _stages(network: nn.Module, img_size: int, name: str) -> list[Stage]:
    """Return the modules that end the stages; the classifier becomes the identity."""
    device = next(network.parameters()).device
    with torch.no_grad(), measuring(network):
        trace = run(network, torch.zeros(2, 3, img_size, img_size, device=device), {})
    _remove_classifier(network, trace, name)
    stages = [
        Stage(each.name, each.map.shape[1], img_size / each.map.shape[2])
        for each in trace.stage_maps
        if not each.after_pooling and each.origin is each.map
    ]
    if len(stages) < 2:
        raise UserError(f"a network of {name} has no two maps of different sizes")
    return stages


def _remove_classifier(network: nn.Module, trace: Trace, name: str) -> None:
    logits = trace.logits
    assert logits is not None
    heads = [each for each, head in trace.heads.items() if head.output.shape == logits.shape]
    if not heads:
        raise UserError(f"a network of {name} has no linear classifier to remove")
    parent, _, child = heads[-1].rpartition(".")
    setattr(network.get_submodule(parent), child, nn.Identity())
