"""Search spaces as users write them, for `picks.py` and `diswot rank`.

diswot search --space benchmarks/user_spaces.py:depthwise ...
"""

from __future__ import annotations

from optuna.trial import BaseTrial
from torch import Tensor, nn

STRIDES = (1, 2, 2)
ACTIVATIONS = {"relu": nn.ReLU, "hswish": nn.Hardswish}


def depthwise(trial: BaseTrial, num_classes: int = 10) -> nn.Module:
    """Three stages of depthwise-separable blocks without shortcuts."""
    act = ACTIVATIONS[trial.suggest_categorical("act", list(ACTIVATIONS))]
    layers, inputs = [], 3
    for stage, stride in enumerate(STRIDES):
        width = trial.suggest_categorical(f"width{stage}", [16, 24, 32, 48, 64])
        kernel = trial.suggest_categorical(f"kernel{stage}", [3, 5])
        for block in range(trial.suggest_int(f"depth{stage}", 1, 3)):
            step = stride if block == 0 else 1
            layers.append(_separable(inputs, width, kernel, step, act()))
            inputs = width
    return nn.Sequential(*layers, *_head(inputs, num_classes))


def plain(trial: BaseTrial, num_classes: int = 10) -> nn.Module:
    """Three stages of full convolutions without shortcuts."""
    layers, inputs = [], 3
    for stage, stride in enumerate(STRIDES):
        width = trial.suggest_categorical(f"width{stage}", [8, 12, 16, 24, 32, 48, 64])
        kernel = trial.suggest_categorical(f"kernel{stage}", [1, 3, 5])
        for block in range(trial.suggest_int(f"depth{stage}", 1, 4)):
            step = stride if block == 0 else 1
            layers.append(nn.Sequential(*_conv(inputs, width, kernel, step), nn.ReLU()))
            inputs = width
    return nn.Sequential(*layers, *_head(inputs, num_classes))


def attentive(trial: BaseTrial, num_classes: int = 10) -> nn.Module:
    """Three stages of residual bottlenecks, with or without squeeze-and-excitation."""
    layers, inputs = [nn.Sequential(*_conv(3, 16, 3), nn.ReLU())], 16
    for stage, stride in enumerate(STRIDES):
        width = trial.suggest_categorical(f"width{stage}", [16, 32, 48, 64, 96, 128])
        ratio = trial.suggest_categorical(f"ratio{stage}", [2, 4])
        kernel = trial.suggest_categorical(f"kernel{stage}", [3, 5])
        attends = trial.suggest_categorical(f"attends{stage}", [False, True])
        for block in range(trial.suggest_int(f"depth{stage}", 1, 4)):
            step = stride if block == 0 else 1
            layers.append(Bottleneck(inputs, width, width // ratio, kernel, step, attends))
            inputs = width
    return nn.Sequential(*layers, *_head(inputs, num_classes))


class Bottleneck(nn.Module):
    """A residual bottleneck, whose branch may be gated by squeeze-and-excitation."""

    def __init__(
        self, inputs: int, outputs: int, hidden: int, kernel: int, stride: int, attends: bool
    ) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *_conv(inputs, hidden, 1), nn.ReLU(),
            *_conv(hidden, hidden, kernel, stride), nn.ReLU(),
            *_conv(hidden, outputs, 1),
        )  # fmt: skip
        self.gate = _gate(outputs) if attends else nn.Sequential()
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Sequential(*([] if same else _conv(inputs, outputs, 1, stride)))

    def forward(self, x: Tensor) -> Tensor:
        branch = self.branch(x)
        if len(self.gate):
            branch = branch * self.gate(branch)
        return nn.functional.relu(branch + self.shortcut(x))


def _gate(width: int) -> nn.Sequential:
    hidden = max(8, width // 4)
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, hidden, 1), nn.ReLU(),
        nn.Conv2d(hidden, width, 1), nn.Sigmoid(),
    )  # fmt: skip


def _separable(inputs: int, outputs: int, kernel: int, stride: int, act: nn.Module) -> nn.Module:
    depthwise = _conv(inputs, inputs, kernel, stride, groups=inputs)
    return nn.Sequential(*depthwise, *_conv(inputs, outputs, 1), act)


def _conv(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    half = kernel // 2
    conv = nn.Conv2d(inputs, outputs, kernel, stride, half, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


def _head(inputs: int, classes: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes)]
