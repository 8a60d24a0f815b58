"""Networks by name, to teach or to compare with, and the weights of a trained one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from diswot.errors import UserError, unknown
from diswot.models import huggingface, timm_torchvision
from diswot.models.cifar_resnet import CifarResNet
from diswot.models.preprocessing import Library, Wants
from diswot.utils import user_code

TEACHERS = {f"resnet{6 * n + 2}": partial(CifarResNet, (n, n, n)) for n in (3, 5, 7, 9, 18)}

LIBRARIES: dict[str, Library] = {
    "timm": Library(
        timm_torchvision.timm_wants,
        timm_torchvision.timm_build,
        "any image classifier of timm",
        "timm:resnet50",
    ),
    "torchvision": Library(
        timm_torchvision.torchvision_wants,
        timm_torchvision.torchvision_build,
        "any image classifier of torchvision",
        "torchvision:resnet34",
    ),
    "hf": Library(
        huggingface.wants,
        huggingface.build,
        "an image classifier of transformers, by name or local folder (extra hf)",
        "hf:microsoft/resnet-18",
    ),
}


def is_name(name: str) -> bool:
    """Whether a name has the form of a network's."""
    return user_code.is_spec(name) or name in TEACHERS or _split(name)[0] in LIBRARIES


def list_teachers() -> list[str]:
    """List the names of the built-in networks; libraries offer more, see `LIBRARIES`."""
    return list(TEACHERS)


def create_teacher(
    name: str, classes: int = 100, size: int | None = None, *, pretrained: bool = False
) -> nn.Module:
    """The network of that name, freshly initialised by its own rules unless `pretrained`.

    Args:
        name: A key of `TEACHERS` (CIFAR ResNets, He et al., CVPR 2016); a name of a library in
            `LIBRARIES`, as `timm:resnet50`; or `file.py:function`, and the function returns a
            network and, if it likes, takes `classes` and `size`.
        classes: Number of logits, K.
        size: S, height and width of the images in pixels, for networks that have to know.
        pretrained: Take the weights that the library offers, which are fetched if need be. The
            head is fresh where they are for another K; `wants` tells that K.

    Raises:
        UserError: The name is unknown, there are no such weights, or the user's function fails.
    """
    return teacher_builder(name, classes, size, pretrained=pretrained)()


def teacher_builder(
    name: str, classes: int = 100, size: int | None = None, *, pretrained: bool = False
) -> Callable[[], nn.Module]:
    """A function that builds the network of that name; arguments and errors as `get`."""
    prefix, inner = _split(name)
    if prefix in LIBRARIES:
        LIBRARIES[prefix].wants(inner, pretrained)
        return partial(LIBRARIES[prefix].build, inner, classes, size, pretrained)
    _refuse_pretrained(name, pretrained)
    if user_code.is_spec(name):
        options = {"classes": classes, "size": size}
        return partial(_built, name, user_code.load(name, **options))
    if name not in TEACHERS:
        raise unknown("teacher", name, [*TEACHERS, *(row.example for row in LIBRARIES.values())])
    return partial(TEACHERS[name], classes)


def wants(name: str, pretrained: bool = False) -> Wants:
    """What a network asks of images, known before it is built; nothing for most fresh ones.

    Raises:
        UserError: A library knows no such network, or there are no such weights.
    """
    prefix, inner = _split(name)
    if prefix in LIBRARIES:
        return LIBRARIES[prefix].wants(inner, pretrained)
    _refuse_pretrained(name, pretrained)
    return Wants()


def _split(name: str) -> tuple[str, str]:
    """Prefix and name within a library; a path of one's own has no such prefix."""
    prefix, _, inner = name.partition(":")
    return (prefix, inner) if inner and not user_code.is_spec(name) else ("", name)


def _refuse_pretrained(name: str, pretrained: bool) -> None:
    if pretrained:
        known = ", ".join(f"{prefix}:NAME" for prefix in LIBRARIES)
        raise UserError(f"there are no pretrained weights to fetch for {name}, only for {known}")


def _built(name: str, function: Callable[[], object]) -> nn.Module:
    try:
        model = function()
    except (
        Exception,
        SystemExit,
    ) as error:  # whatever a user's function raises is told in one line
        raise UserError(f"{name} fails: {user_code.explain(error, name)}") from error
    if not isinstance(model, nn.Module):
        raise UserError(f"{name} must return a torch module, not a {type(model).__name__}")
    return model
