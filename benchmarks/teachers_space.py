"""The students and the teachers of `teachers_table.py`, for the trainings and for `diswot rank`.

All of them end in 64 channels, so that every score is defined for every pair.

    diswot rank --table docs/tables/teachers.csv --space benchmarks/teachers_space.py:build ...
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from optuna.trial import BaseTrial
from torch import Tensor, nn

from diswot.models.cifar_resnet import CifarResNet
from diswot.spaces import cifar_cnn, cifar_resnet, nasbench201
from diswot.spaces.cells import EDGES
from diswot.spaces.trials import FixedParamsTrial
from diswot.utils import jsonl

TABLES = Path(__file__).parents[1] / "docs/tables"
STUDENTS = TABLES / "teachers_students.jsonl"
FEATURES = 64  # channels that enter each classifier
VGG = ((32, 1), (32, 1), (64, 2), (64, 1), (64, 2), (64, 1))  # channels and stride
PATCH, MIXERS, KERNEL = 2, 4, 5  # of the ConvMixer


def small_nasbench201(trial: BaseTrial, num_classes: int) -> nn.Module:
    """Build a cell of NAS-Bench-201 in its skeleton with one cell a stage instead of five."""
    operations = {name: trial.suggest_categorical(name, nasbench201.OPERATIONS) for name in EDGES}
    first, second, third = nasbench201.WIDTHS
    stem = nn.Sequential(nn.Conv2d(3, first, 3, padding=1, bias=False), nn.BatchNorm2d(first))
    layers = OrderedDict(
        stem=stem,
        stage1=nasbench201.cell(operations, first),
        reduction2=nasbench201.reduction(first, second),
        stage2=nasbench201.cell(operations, second),
        reduction3=nasbench201.reduction(second, third),
        stage3=nasbench201.cell(operations, third),
        norm=nn.Sequential(nn.BatchNorm2d(third), nn.ReLU()),
        pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        classifier=nn.Linear(third, num_classes),
    )
    return nn.Sequential(layers)


SPACES: Mapping[str, Callable[..., nn.Module]] = {
    "s0": cifar_resnet.build,
    "cifar_cnn": partial(cifar_cnn.build, features=FEATURES),
    "nasbench201": small_nasbench201,
}


@cache
def students() -> dict[str, dict[str, Any]]:
    """Return the drawn students by name: their space and their parameters."""
    return {row["student"]: row for row in jsonl.read_lines(STUDENTS)}


def build(trial: BaseTrial, num_classes: int = 20) -> nn.Module:
    """Build one of the drawn students, by name."""
    row = students()[trial.suggest_categorical("student", list(students()))]
    return student(row, num_classes)


def student(row: Mapping[str, Any], num_classes: int) -> nn.Module:
    """Build the student of a line of the file of students."""
    return SPACES[row["space"]](FixedParamsTrial(row["params"]), num_classes=num_classes)


def resnet56(num_classes: int = 20) -> nn.Module:
    """Build ResNet-56 (He et al., CVPR 2016)."""
    return CifarResNet((9, 9, 9), num_classes)


def vgg(num_classes: int = 20) -> nn.Module:
    """Build six 3x3 convolutions without shortcuts, as VGG (Simonyan and Zisserman, ICLR 2015)."""
    layers: list[nn.Module] = []
    inputs = 3
    for width, stride in VGG:
        convolution = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        layers.append(nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU()))
        inputs = width
    return nn.Sequential(*layers, *_head(inputs, num_classes))


class Mixer(nn.Module):
    """A depthwise convolution with a shortcut, then a pointwise convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        depthwise = nn.Conv2d(width, width, KERNEL, padding=KERNEL // 2, groups=width)
        self.depthwise = nn.Sequential(depthwise, nn.GELU(), nn.BatchNorm2d(width))
        self.pointwise = nn.Sequential(nn.Conv2d(width, width, 1), nn.GELU(), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.pointwise(x + self.depthwise(x))
        return mixed


def convmixer(num_classes: int = 20) -> nn.Module:
    """Build a ConvMixer on patches of 2 pixels (Trockman and Kolter, TMLR 2023)."""
    patches = nn.Sequential(
        nn.Conv2d(3, FEATURES, PATCH, PATCH), nn.GELU(), nn.BatchNorm2d(FEATURES)
    )
    mixers = (Mixer(FEATURES) for _ in range(MIXERS))
    return nn.Sequential(patches, *mixers, *_head(FEATURES, num_classes))


def _head(inputs: int, num_classes: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, num_classes)]


TEACHERS: Mapping[str, Callable[[int], nn.Module]] = {
    "vgg": vgg,
    "convmixer": convmixer,
    "resnet56": resnet56,
}
