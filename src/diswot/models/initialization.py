"""How a network's weights are drawn before it is scored: part of a score's definition."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Generator, Tensor, nn

from diswot.errors import UserError, unknown

STUDENT, TEACHER = 0, 1

WEIGHTED = (nn.Linear, nn.modules.conv._ConvNd)
NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


def derive_seed(seed: int, *place: int) -> int:
    """A 63-bit seed for one place (a repeat, an epoch) under a user's seed.

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

    The same function always gives the same weights, in any process and in any order; the global
    random state is left as it was. They are drawn on the processor, whatever torch's default
    device, so that a network that is moved elsewhere has the same there.

    Args:
        build: Makes the network; its own initialisation runs first.
        init: A key of `INITS`.
        seed: The user's seed.
        repeat: Number of the repeat.
        role: `STUDENT` or `TEACHER`, whose weights are drawn apart.

    Raises:
        UserError: The initialisation is unknown.
    """
    if init not in INITS:
        raise unknown("initialisation", init, INITS)
    number = derive_seed(seed, repeat, role)
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        torch.random.fork_rng(devices=[]),
        _on_the_processor(),
    ):
        torch.default_generator.manual_seed(number)
        model = build()
        INITS[init](model, torch.Generator().manual_seed(number))
    return model


def _on_the_processor() -> AbstractContextManager[object]:
    """Make tensors there, unless they are made there anyway: this takes time with each."""
    anyway = torch.get_default_device().type == "cpu"
    return nullcontext() if anyway else torch.device("cpu")


def _own(model: nn.Module, generator: Generator) -> None:
    """Keep what the modules drew for themselves."""


def _gaussian(model: nn.Module, generator: Generator) -> None:
    """N(0, 1) for convolutions and linear layers, as the published code."""
    _draw(model, lambda weight: 1.0, generator)


def _kaiming(model: nn.Module, generator: Generator) -> None:
    """N(0, 2 / fan_in) for convolutions and linear layers. He et al., ICCV 2015."""
    _draw(model, lambda weight: math.sqrt(2 / weight[0].numel()), generator)


def _draw(model: nn.Module, deviation: Callable[[Tensor], float], generator: Generator) -> None:
    """Normal weights, zero biases, identity normalisation; other parameters keep their own."""
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
}
