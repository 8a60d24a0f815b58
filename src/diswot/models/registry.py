"""Teachers and other networks by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

from diswot.errors import UserError, unknown
from diswot.models import huggingface, segmentation_models, timm_torchvision
from diswot.models.backbones import split
from diswot.models.cifar_resnet import CifarResNet
from diswot.models.preprocessing import InputConfig
from diswot.models.supported import usable
from diswot.utils import user_code

TEACHERS = {f"resnet{6 * n + 2}": partial(CifarResNet, (n, n, n)) for n in (3, 5, 7, 9, 18)}

_DETECTOR, _DETECTOR_SIZE = "detector:timm:resnet18+fcos", 320  # pixels, without another size


def _detector_config(name: str, pretrained: bool) -> InputConfig:
    """Return the input configuration of a detector's classifier, for images of any size if it can.

    The classes of pretrained weights are the classifier's, so that the detector is no teacher yet.
    """
    from diswot.models.detectors import HEADS  # loads torchvision

    backbone, heads = split(name, _DETECTOR)
    if heads not in HEADS:
        raise unknown("detector", heads, HEADS)
    size = input_config(backbone).img_size
    return replace(input_config(backbone, pretrained), img_size=size, classes=None)


def _build_detector(name: str, classes: int, size: int | None, pretrained: bool) -> nn.Module:
    """Build a detector; pretrained weights are those of its classifier."""
    from diswot.models.detectors import build_detector, padded

    (backbone, heads), pixels = split(name, _DETECTOR), size or _DETECTOR_SIZE
    network = create_teacher(backbone, classes, padded(pixels), pretrained=pretrained)
    return build_detector(network, heads, classes, pixels, backbone)


@dataclass(frozen=True)
class Library:
    """A library of networks, under a prefix of their names, and its facts.

    Attributes:
        input_config: Function of a name and `pretrained` that returns an input configuration.
        build: Function of a name, K, S and `pretrained` that returns a network.
        summary: One line.
        example: Name of a network.
    """

    input_config: Callable[[str, bool], InputConfig]
    build: Callable[[str, int, int | None, bool], nn.Module]
    summary: str
    example: str


LIBRARIES: dict[str, Library] = {
    "timm": Library(
        timm_torchvision.timm_input_config,
        timm_torchvision.timm_build,
        "any image classifier of timm",
        "timm:resnet50",
    ),
    "torchvision": Library(
        timm_torchvision.torchvision_input_config,
        timm_torchvision.torchvision_build,
        "any image classifier of torchvision, and its networks for segmentation and detection",
        "torchvision:resnet34",
    ),
    "hf": Library(
        huggingface.input_config,
        huggingface.build,
        "a network of transformers, by name or local folder (extra hf)",
        "hf:microsoft/resnet-18",
    ),
    "detector": Library(
        _detector_config,
        _build_detector,
        "a classifier with a name under a pyramid and the heads of fcos or retinanet",
        _DETECTOR,
    ),
    "smp": Library(
        segmentation_models.input_config,
        segmentation_models.build,
        "a decoder and an encoder for segmentation (extra segmentation)",
        "smp:fpn-resnet18",
    ),
}


def is_name(name: str) -> bool:
    """Say whether a name can be that of a network."""
    return user_code.is_spec(name) or name in TEACHERS or _split(name)[0] in LIBRARIES


def list_teachers() -> list[str]:
    """List the names of the built-in networks. `LIBRARIES` has prefixes for many more."""
    return list(TEACHERS)


def create_teacher(
    name: str, num_classes: int = 100, img_size: int | None = None, *, pretrained: bool = False
) -> nn.Module:
    """Return the network of a name, with its own initialisation unless `pretrained`.

    Args:
        name: A key of `TEACHERS` (CIFAR ResNets, He et al., CVPR 2016); a name of a library in
            `LIBRARIES`, such as `timm:resnet50`; `detector:CLASSIFIER+HEADS`, such as
            `detector:timm:resnet18+fcos`; or `file.py:function`, a function that returns a network
            and may take `num_classes` and `img_size`.
        num_classes: Number of logits, K.
        img_size: Height and width of the images in pixels, S, for networks that need to know. None,
            the default: the network's own size.
        pretrained: Whether to take the library's weights, which are downloaded if need be. The
            head is new if the weights have another K; see `input_config`.

    Raises:
        UserError: The name is unknown, there are no such weights, or the user's function fails.
    """
    return teacher_builder(name, num_classes, img_size, pretrained=pretrained)()


def teacher_builder(
    name: str, num_classes: int = 100, img_size: int | None = None, *, pretrained: bool = False
) -> Callable[[], nn.Module]:
    """Return a function that builds the network of a name, as `create_teacher` does."""
    input_config(name, pretrained)  # refuses a name or weights that a library does not have
    prefix, inner = _split(name)
    if prefix:
        return partial(LIBRARIES[prefix].build, inner, num_classes, img_size, pretrained)
    if user_code.is_spec(name):
        function = user_code.load(name, num_classes=num_classes, img_size=img_size)
        return partial(_built, name, function)
    if name not in TEACHERS:
        raise unknown("teacher", name, [*TEACHERS, *(row.example for row in LIBRARIES.values())])
    return partial(TEACHERS[name], num_classes)


def input_config(name: str, pretrained: bool = False) -> InputConfig:
    """Return the images and classes that a network needs, without building the network.

    Most networks without pretrained weights take any images and classes.

    Raises:
        UserError: The library has no such network, or no such weights, or weights are wanted of a
            network of no library.
    """
    prefix, inner = _split(name)
    if prefix:
        return LIBRARIES[prefix].input_config(inner, pretrained)
    if pretrained:
        known = ", ".join(f"{prefix}:NAME" for prefix in LIBRARIES)
        raise UserError(f"there are no pretrained weights to fetch for {name}, only for {known}")
    return InputConfig()


def _split(name: str) -> tuple[str, str]:
    """Split a name into the prefix of a library and the name there; others have no prefix."""
    prefix, _, inner = name.partition(":")
    return (prefix, inner) if inner and prefix in LIBRARIES else ("", name)


def _built(name: str, function: Callable[[], object]) -> nn.Module:
    model = user_code.call(name, function)
    if not isinstance(model, nn.Module):
        raise UserError(f"{name} must return a torch module, not a {type(model).__name__}")
    return usable(model, meta=torch.get_default_device().type == "meta")
