"""Initialisation of a network before it is scored, which is part of a score's definition."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Generator, Tensor, nn

from diswot.errors import UserError, unknown
from diswot.models.supported import usable
from diswot.utils.compat import BatchNorm, ConvBase

STUDENT, TEACHER = 0, 1
INHERITED = "inherited"

WEIGHTED = (nn.Linear, ConvBase)
NORMS = (BatchNorm, nn.GroupNorm, nn.LayerNorm)


def derive_seed(seed: int, *place: int) -> int:
    """Derive a 63-bit seed from the user's seed and some indices, such as a repeat or an epoch.

    Raises:
        UserError: The user's seed is below zero.
    """
    if seed < 0:
        raise UserError(f"a seed must not be below zero, as {seed} is")
    return int(np.random.SeedSequence((seed, *place)).generate_state(1, np.uint64)[0] >> 1)


def fresh(
    build: Callable[[], nn.Module], init: str, seed: int, repeat: int = 0, role: int = STUDENT
) -> nn.Module:
    """Build a network and draw its weights from (seed, repeat, role) alone.

    The same function has the same weights in any process and in any order. The global random state
    does not change. The weights are drawn on the CPU, not on the default device of torch, so
    that all devices compute with the same weights.

    Args:
        build: Function that builds the network; the network's own initialisation runs first.
        init: A key of `INITS`.
        seed: The user's seed.
        repeat: Index of the repeat, from 0.
        role: `STUDENT` or `TEACHER`. The two have different weights.

    Raises:
        UserError: The initialisation is unknown, or the network cannot be measured.
    """
    if init not in INITS:
        raise unknown("initialisation", init, INITS)
    number = derive_seed(seed, repeat, role)
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        torch.random.fork_rng(devices=[]),
        _on_cpu(),
    ):
        torch.default_generator.manual_seed(number)
        model = usable(build())
        INITS[init](model, torch.Generator().manual_seed(number))
    return model


def _on_cpu() -> AbstractContextManager[object]:
    """Make the CPU the default device, if it is not: `torch.device` slows each call down."""
    is_default = torch.get_default_device().type == "cpu"
    return nullcontext() if is_default else torch.device("cpu")


def _own(model: nn.Module, generator: Generator) -> None:
    """Keep the weights that the modules drew; what is inherited is copied later."""


def _gaussian(model: nn.Module, generator: Generator) -> None:
    """Draw N(0, 1) for convolutions and linear layers, as the published code does."""
    _draw(model, lambda weight: 1.0, generator)


def _kaiming(model: nn.Module, generator: Generator) -> None:
    """Draw N(0, 2 / fan_in) for convolutions and linear layers. He et al., ICCV 2015."""
    _draw(model, lambda weight: math.sqrt(2 / weight[0].numel()), generator)


def _draw(model: nn.Module, deviation: Callable[[Tensor], float], generator: Generator) -> None:
    """Draw normal weights; set biases to 0 and norms to 1; keep all other parameters."""
    for module in model.modules():
        if isinstance(module, WEIGHTED):
            module.weight.normal_(0, deviation(module.weight), generator=generator)
        elif isinstance(module, NORMS) and module.weight is not None:
            module.weight.fill_(1)
        else:
            continue
        if module.bias is not None:
            module.bias.zero_()


INITS: dict[str, Callable[[nn.Module, Generator], None]] = {
    "gaussian": _gaussian,
    "kaiming": _kaiming,
    "default": _own,
    INHERITED: _own,
}
