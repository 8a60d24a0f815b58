"""The space of timm's models, to find the best student among published networks.

One parameter, `model`, chooses among the names that a pattern matches, such as
`timm_zoo:mobilenetv3*`, or several patterns separated by commas. Nothing is downloaded: weights are
drawn at random. Models keep their strides: most divide the image size by 32, which leaves one
position of 32 pixels.

Wightman, "PyTorch Image Models", 2019.
"""

from __future__ import annotations

import difflib
from functools import cache

import timm
import torch
from optuna.trial import BaseTrial
from torch import nn

from diswot.costs.counts import count_params
from diswot.errors import UserError
from diswot.models.timm_torchvision import timm_build

LARGEST = 200e6  # parameters; larger models take long to draw and may exceed the memory
_MADE_FOR_TESTS = "test_*"


@cache
def names(pattern: str = "*") -> tuple[str, ...]:
    """List the models that a shell pattern matches, or several patterns separated by commas.

    Test models of timm match only patterns that start with `test_`.

    Raises:
        UserError: A pattern matches no model.
    """
    found: set[str] = set()
    for each in (part.strip() for part in pattern.split(",")):
        without = "" if each.startswith("test_") else _MADE_FOR_TESTS
        matching = set(timm.list_models(each or "-", exclude_filters=without))
        if not matching:
            raise _no_model(each)
        found |= matching
    return tuple(name for name in timm.list_models() if name in found)


def _no_model(name: str) -> UserError:
    near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "timm.list_models() has all"
    return UserError(f"timm has no model {name!r}; {hint}")


SIZE = len(names())


def check(pattern: str) -> dict[str, str]:
    """Return the pattern, if it matches a model."""
    names(pattern)
    return {"pattern": pattern}


def build(
    trial: BaseTrial, num_classes: int = 1000, img_size: int = 224, pattern: str = "*"
) -> nn.Module:
    """Build the model of a name, `model`, that the pattern matches, without pretrained weights.

    Raises:
        UserError: No model matches, or the model is too large or does not fit the image size.
    """
    name = trial.suggest_categorical("model", names(pattern))
    if torch.get_default_device().type != "meta":
        with torch.device("meta"):
            size = count_params(timm_build(name, num_classes, img_size, False))
        if size > LARGEST:
            limit = f"the {LARGEST / 1e6:.0f} M up to which models are built"
            raise UserError(f"{name} has {size / 1e6:.0f} M parameters, above {limit}")
    return timm_build(name, num_classes, img_size, False)


def from_arch(name: str, pattern: str = "*") -> dict[str, str]:
    """Convert the name of a model to parameters; a training tag such as `.a1_in1k` is dropped.

    Raises:
        UserError: Neither timm nor the pattern has the model.
    """
    model = name.partition(".")[0]
    if model not in names("*,test_*"):
        raise _no_model(model)
    if model not in names(pattern):
        raise UserError(f"model is {model!r}, which the pattern {pattern!r} does not match")
    return {"model": model}
