"""The models of timm as candidates: which of these is the best student?

One choice, `model`, among the names that a pattern matches: `timm_zoo:mobilenetv3*`, or several
patterns with commas. Nothing is downloaded: weights are drawn, and the list is timm's own. Models
are taken as they are: most shrink images 32 times, so that little is left of 32 pixels.

Wightman, "PyTorch Image Models", 2019.
"""

from __future__ import annotations

import difflib
from functools import cache
from typing import Any

import timm
import torch
from optuna.trial import BaseTrial
from torch import nn

from diswot.costs.counts import count_params
from diswot.errors import UserError

LARGEST = 200e6  # parameters: above, drawing weights takes long and may not fit the memory
_MADE_FOR_TESTS = "test_*"


@cache
def names(pattern: str = "*") -> tuple[str, ...]:
    """The models that a pattern matches, or several with commas; `?`, `*` and `[ab]` as in a shell.

    timm's own test models are left out, unless a pattern starts with `test_`.

    Raises:
        UserError: There are none.
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


def build(
    trial: BaseTrial, classes: int = 1000, image_size: int = 224, pattern: str = "*"
) -> nn.Module:
    """Build the model of a name, without pretrained weights.

    Args:
        trial: Asked for `model`.
        classes: K.
        image_size: In pixels; told to those models that must know it beforehand.
        pattern: Which models are candidates; see `names`.

    Raises:
        UserError: No model has such a name, or this one is too large, or not for that size.
    """
    name = trial.suggest_categorical("model", names(pattern))
    if torch.get_default_device().type != "meta":
        with torch.device("meta"):
            size = count_params(_create(name, classes, image_size))
        if size > LARGEST:
            limit = f"the {LARGEST / 1e6:.0f} M up to which models are built"
            raise UserError(f"{name} has {size / 1e6:.0f} M parameters, above {limit}")
    return _create(name, classes, image_size)


def _create(name: str, classes: int, image_size: int) -> nn.Module:
    facts = timm.get_pretrained_cfg(name)
    sized = facts is not None and facts.fixed_input_size
    options: dict[str, Any] = {"img_size": image_size} if sized else {}
    try:
        model: nn.Module = timm.create_model(name, pretrained=False, num_classes=classes, **options)
    except Exception as error:  # whatever a model raises is told in one line
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{name} cannot be built for {image_size} pixels: {reason}") from error
    return model
