"""The space of MobileNets: six stages of inverted residuals with their own choices.

    images -> convolution -> separable block -> inverted residuals -> 1x1 convolution -> classifier

Papers: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018, whose
network is in the space; squeeze-and-excitation, kernels and expansions as choices: Howard et al.,
"Searching for MobileNetV3", ICCV 2019. The networks are timm's `EfficientNet` of those blocks.
"""

from __future__ import annotations

from optuna.trial import BaseTrial
from timm.layers.helpers import make_divisible
from timm.models.efficientnet import EfficientNet
from torch import nn

from diswot.spaces.strides import strides
from diswot.utils.compat import decoded_blocks

WIDTHS = (0.35, 0.5, 0.75, 1.0, 1.25)
DEPTHS = (1, 4)
KERNELS = (3, 5, 7)
EXPANSIONS = (3, 4, 6)
GATES = (False, True)
CHANNELS = (24, 32, 64, 96, 160, 320)
STRIDES = (2, 2, 2, 1, 2, 1)
_A_STAGE = DEPTHS[1] * len(KERNELS) * len(EXPANSIONS) * len(GATES)
SIZE = len(WIDTHS) * _A_STAGE ** len(CHANNELS)


def build(
    trial: BaseTrial, num_classes: int = 1000, img_size: int = 224, features: int = 1280
) -> nn.Module:
    """Build a network: `width`, and `depth_i`, `kernel_i`, `expand_i` and `se_i` of six stages.

    Below 96 pixels a side, the first strides are 1 instead of 2: one stride at 64, two strides at
    32. `features` are the channels of the last map, C: MobileNetV2 and EfficientNet-B0 have 1280.
    """
    width = trial.suggest_categorical("width", WIDTHS)
    first, *rest = strides((2, *STRIDES), img_size)
    stages = [
        _stage(trial, place, channels, stride)
        for place, (channels, stride) in enumerate(zip(CHANNELS, rest, strict=True), 1)
    ]
    model = EfficientNet(
        decoded_blocks([["ds_r1_k3_s1_c16"], *stages]),
        num_classes=num_classes,
        num_features=features,
        round_chs_fn=lambda channels: make_divisible(width * channels),  # type: ignore[no-untyped-call]
        act_layer=nn.ReLU6,
    )
    model.conv_stem.stride = (first, first)
    return model


def _stage(trial: BaseTrial, place: int, channels: int, stride: int) -> list[str]:
    """Return a stage in timm's notation, such as ir_r2_k3_s2_e6_c24."""
    depth = trial.suggest_int(f"depth_{place}", *DEPTHS)
    kernel = trial.suggest_categorical(f"kernel_{place}", KERNELS)
    expansion = trial.suggest_categorical(f"expand_{place}", EXPANSIONS)
    gate = "_se0.25" if trial.suggest_categorical(f"se_{place}", GATES) else ""
    return [f"ir_r{depth}_k{kernel}_s{stride}_e{expansion}_c{channels}{gate}"]
