"""Search spaces by name, and the networks of a space."""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from inspect import Parameter
from types import ModuleType
from typing import Any

from optuna.trial import BaseTrial
from torch import nn

from diswot.errors import UserError, unknown
from diswot.models.backbones import split
from diswot.models.supported import usable
from diswot.models.weightless import Weightless
from diswot.spaces.trials import EnumeratingTrial, FixedParamsTrial
from diswot.spaces.validation import Build, check
from diswot.utils import user_code

Params = dict[str, Any]


@dataclass(frozen=True)
class Space:
    """A built-in search space and its facts.

    The module of a space is imported on first use: timm, which some need, takes seconds.

    Attributes:
        module: Name of the module in this package.
        summary: One line.
        paper: Authors and year.
        function: Name of the function of a trial in the module.
        constant: Name of the number of architectures in the module; empty if it differs.
        argument: What the text after a colon is, for messages; empty if there is none. The function
            `check` of the module turns the text into options of the space's function.
        example: A name with such text, if the space needs it.
        task: Task of the networks, a key of `tasks.registry.TASKS`; empty if the text after the
            colon decides.
    """

    module: str
    summary: str
    paper: str
    function: str = "build"
    constant: str = "SIZE"
    argument: str = ""
    example: str = ""
    task: str = "classification"

    @property
    def build(self) -> Callable[..., nn.Module]:
        """The function of a trial that builds a network."""
        build: Callable[..., nn.Module] = getattr(self._home(), self.function)
        return build

    @property
    def size(self) -> int | None:
        """Number of architectures; None if it depends on the text after the colon."""
        return getattr(self._home(), self.constant) if self.constant else None

    def check(self, text: str, options: Mapping[str, int]) -> dict[str, Any]:
        """Return the options of the function that the text after a colon stands for."""
        found: dict[str, Any] = user_code.bind(self._home().check, **options)(text)
        return found

    def _home(self) -> ModuleType:
        return importlib.import_module(f"diswot.spaces.{self.module}")


SPACES: dict[str, Space] = {
    "s0": Space(
        "cifar_resnet",
        "CIFAR ResNets, 1, 3, 5 or 7 blocks in each of 3 stages",
        "DisWOT, CVPR 2023",
    ),
    "cifar_resnet": Space(
        "cifar_resnet",
        "CIFAR ResNets, 1 to 9 blocks and a width in each of 3 stages; S0 is in it",
        "He et al., CVPR 2016",
        function="build_wide",
        constant="SIZE_WIDE",
    ),
    "cifar_cnn": Space(
        "cifar_cnn",
        "3 stages of basic, bottleneck or inverted residual blocks, with or without a gate",
        "He et al., CVPR 2016; Sandler et al., CVPR 2018",
    ),
    "imagenet_resnet": Space(
        "imagenet_resnet",
        "ResNets of 3 to 5 stages, each with its block, kernel, width and depth",
        "DisWOT, CVPR 2023",
    ),
    "mobilenet": Space(
        "mobilenet",
        "inverted residuals, 6 stages, each with its depth, kernel, expansion and gate",
        "Sandler et al., CVPR 2018",
    ),
    "nasbench201": Space(
        "nasbench201",
        "cells of 6 edges with 5 operations, 3 stages of 5 cells",
        "Dong and Yang, ICLR 2020",
    ),
    "nasbench101": Space(
        "nasbench101",
        "cells of up to 7 vertices and 9 edges with 3 operations, 3 stages of 3 cells",
        "Ying et al., ICML 2019",
    ),
    "transnas_micro": Space(
        "transnas",
        "cells of 6 edges with 4 operations, 5 modules of 2 cells",
        "Duan et al., CVPR 2021",
        function="build_micro",
        constant="SIZE_MICRO",
    ),
    "transnas_macro": Space(
        "transnas",
        "4 to 6 modules of residual blocks, which may double channels or halve the size",
        "Duan et al., CVPR 2021",
        function="build_macro",
        constant="SIZE_MACRO",
    ),
    "transnas_micro_seg": Space(
        "transnas",
        "transnas_micro with the benchmark's decoder for segmentation",
        "Duan et al., CVPR 2021",
        function="build_micro_seg",
        constant="SIZE_MICRO",
        task="segmentation",
    ),
    "transnas_macro_seg": Space(
        "transnas",
        "transnas_macro with the benchmark's decoder for segmentation",
        "Duan et al., CVPR 2021",
        function="build_macro_seg",
        constant="SIZE_MACRO",
        task="segmentation",
    ),
    "nasbench_macro": Space(
        "nasbench_macro",
        "8 layers in 3 stages, each the identity or one of two inverted residuals",
        "Su et al., CVPR 2021",
    ),
    "nasbench_mr": Space(
        "nasbench_mr",
        "networks of four parallel resolutions in 4 stages of up to 4 modules",
        "Ding et al., ICLR 2022",
    ),
    "nasbench_mr_seg": Space(
        "nasbench_mr",
        "nasbench_mr with the benchmark's head for segmentation",
        "Ding et al., ICLR 2022",
        function="build_seg",
        task="segmentation",
    ),
    "autoformer": Space(
        "autoformer",
        "vision transformers, 12 to 14 layers, each with its own heads and MLP ratio",
        "Chen et al., ICCV 2021",
    ),
    "vit": Space(
        "vit",
        "plain vision transformers of 4 to 12 layers, DeiT-Ti and DeiT-S among them",
        "Touvron et al., ICML 2021",
    ),
    "pit": Space(
        "pit",
        "pooling vision transformers of three stages",
        "Heo et al., ICCV 2021",
    ),
    "timm_zoo": Space(
        "timm_zoo",
        "timm's own models, or those of a pattern, such as timm_zoo:mobilenetv3*",
        "Wightman, 2019",
        argument="pattern",
    ),
    "smp_zoo": Space(
        "smp_zoo",
        "networks of segmentation-models-pytorch of a pattern",
        "Iakubovskii, 2019",
        constant="",
        argument="pattern",
        example="smp_zoo:fpn-tu-mobilenetv3*",
        task="segmentation",
    ),
    "subnet": Space(
        "subnet",
        "sub-networks of a teacher of yours, a depth and a width of each of its stages",
        "Fang et al., CVPR 2023",
        constant="",
        argument="teacher",
        example="subnet:resnet56",
        task="",
    ),
    "dense": Space(
        "dense",
        "networks for segmentation: a backbone of any space under lraspp or fpn",
        "Howard et al., ICCV 2019; Lin et al., CVPR 2017",
        constant="",
        argument="parts",
        example="dense:mobilenet+lraspp",
        task="segmentation",
    ),
    "detector": Space(
        "detector",
        "detectors: a backbone of any space under a pyramid and the heads of fcos or retinanet",
        "Tian et al., ICCV 2019; Lin et al., ICCV 2017",
        constant="",
        argument="parts",
        example="detector:mobilenet+fcos",
        task="detection",
    ),
}


@dataclass(frozen=True)
class NamedSpace:
    """A space as `create_space` returns it: a function of a trial.

    Attributes:
        build: The function, with the options below bound.
        name: Name of the space, as `create_space` takes it.
        num_classes: Number of logits, K.
        img_size: Height and width of the images in pixels.
    """

    build: Callable[..., nn.Module]
    name: str
    num_classes: int
    img_size: int

    def __call__(self, trial: BaseTrial) -> nn.Module:
        """Build the network of a trial."""
        return self.build(trial)

    @property
    def facts(self) -> dict[str, Any]:
        """What a run folder records of the space, with the path of a user's file made absolute."""
        return {
            "space": user_code.rooted(self.name),
            "classes": self.num_classes,
            "image_size": self.img_size,
        }


def list_spaces() -> list[str]:
    """List the names of the built-in spaces."""
    return list(SPACES)


def create_space(name: str, num_classes: int = 100, img_size: int = 32) -> NamedSpace:
    """Return the space of a name as a function of a trial.

    Args:
        name: A key of `SPACES`; `timm_zoo:PATTERN`, `smp_zoo:PATTERN`, `subnet:TEACHER`,
            `dense:BACKBONE+DECODER` or `detector:BACKBONE+HEADS`; or `file.py:function`, a
            function that takes a trial and may take `num_classes` and `img_size`. Such a function
            is tried on a few networks.
        num_classes: Number of logits of the networks, K.
        img_size: Height and width of the images in pixels.

    Raises:
        UserError: The name is unknown, or the user's function is no space.
    """
    build = _bound(name, {"num_classes": num_classes, "img_size": img_size})
    return NamedSpace(build, name, num_classes, img_size)


def _bound(name: str, options: Mapping[str, int]) -> Build:
    """Return the function of a space by its name with options bound."""
    plain, colon, text = name.partition(":")
    if plain not in SPACES:
        if user_code.is_spec(name):
            return _own(name, user_code.load(name, **options))
        raise unknown("space", plain, SPACES)
    row = SPACES[plain]
    if not colon:
        if row.example:
            raise UserError(f"{plain} needs a {row.argument}, such as {row.example}")
        return user_code.bind(row.build, **options)
    if not row.argument:
        raise UserError(f"{plain} is no list of networks, to choose from by {text!r}")
    return user_code.bind(row.build, **options, **row.check(text, options))


def backbone_space(
    parts: str, what: str, tops: Iterable[str], space: str, num_classes: int, img_size: int
) -> dict[str, Any]:
    """Return the space of backbones that a text names before a plus, and the top that it names.

    The text stands after the name of a space. Each of its tops is a `what`, by which it is
    returned beside `backbone`.

    Raises:
        UserError: A name is unknown, or the user's function is no space.
    """
    backbone, top = split(parts, SPACES[space].example)
    if top not in tops:
        raise unknown(what, top, tops)
    return {"backbone": create_space(backbone, num_classes, img_size), what: top}


def _own(name: str, build: Build) -> Build:
    try:
        _check_takes_trial(build)
        check(build)
    except Exception as error:  # a user's function may raise anything
        reason = str(error) if isinstance(error, UserError) else user_code.explain(error, name)
        raise UserError(f"{name} is no space: {reason}") from error
    return build


def _check_takes_trial(build: Build) -> None:
    """Refuse a function that has no parameter for the trial, such as a teacher's."""
    by_name = (Parameter.KEYWORD_ONLY, Parameter.VAR_KEYWORD)
    if all(p.kind in by_name for p in inspect.signature(build).parameters.values()):
        raise UserError("the first parameter of a space is the trial")


def build_network(build: Build, params: Params) -> nn.Module:
    """Build the network of some parameters.

    Raises:
        UserError: A parameter is missing, unknown to the space or outside its choices, or the space
            does not return a module.
    """
    trial = FixedParamsTrial(params)
    model = construct(build, trial)
    if unused := params.keys() - trial.distributions.keys():
        raise unknown("parameter", min(unused), trial.distributions)
    return model


def construct(build: Build, trial: BaseTrial) -> nn.Module:
    """Build the network of a trial.

    Raises:
        UserError: The space does not return a module, or one that cannot be measured.
    """
    model = build(trial)
    if not isinstance(model, nn.Module):
        raise UserError(f"a space must return a torch module, not a {type(model).__name__}")
    return usable(model, meta=True)


def enumerate_params(build: Build, limit: int) -> list[Params] | None:
    """List all architectures of a space in a fixed order; None if there are more than `limit`.

    A choice may depend on earlier choices. At most `limit` + 2 networks are built, and only two if
    the choices of the first and of the last architecture both have more than `limit` combinations.
    An architecture whose network cannot be built counts, too.

    Raises:
        UserError: A choice is not a plain value, which no storage could keep.
    """
    first, last = _follow(build), _follow(build, last=True)
    if limit < min(math.prod(path.sizes()) for path in (first, last)):
        return None
    found: list[Params] = []
    for path in _paths(build):
        if len(found) == limit or math.inf in path.sizes():
            return None
        found.append(path.params)
    return found


def _paths(build: Build) -> Iterator[EnumeratingTrial]:
    """Yield a trial for every sequence of choices; the last choice changes fastest."""
    digits: Sequence[int] | None = ()
    while digits is not None:
        path = _follow(build, digits)
        yield path
        digits = path.next_digits()


def _follow(build: Build, digits: Sequence[int] = (), *, last: bool = False) -> EnumeratingTrial:
    """Run a space to the end of its choices; a network that fails is an architecture, too.

    The network is built on the meta device if possible, since some exceed the memory.
    """
    path = EnumeratingTrial(digits, last=last)
    try:
        with Weightless():
            build(path)
    except (Exception, SystemExit):
        path = EnumeratingTrial(digits, last=last)
        with suppress(Exception, SystemExit):
            build(path)
    path.check()
    return path
