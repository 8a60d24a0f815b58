"""How big a network is, and limits on that.

Conventions: parameters are all trainable ones; 1 MAC is one multiply-add, counted on one image in
convolutions and matrix products (attention included), with bias, normalisation, activation and
pooling left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from diswot.errors import UserError

Shape = tuple[int, int, int]

_POWERS = {"": 0, "K": 3, "M": 6, "G": 9, "B": 9}


def count_params(model: nn.Module) -> int:
    """Number of trainable parameters, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def count_macs(model: nn.Module, image_shape: Shape) -> int:
    """Multiply-adds of one image, counted in a real forward pass in evaluation mode.

    A pass on the meta device takes longer for networks of CIFAR size (35 ms against 7 ms for
    ResNet-20), so it is not used.

    Args:
        model: On any device.
        image_shape: C, H, W.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    with _evaluating(model), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, *image_shape, device=device))
    return int(counter.get_total_flops()) // 2


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without fused attention, whose products not every counter sees."""
    modes = [(module, module.training) for module in model.modules()]
    fused = torch.backends.mha.get_fastpath_enabled()
    with torch.no_grad(), torch.random.fork_rng(devices=[]), sdpa_kernel(SDPBackend.MATH):
        try:
            torch.backends.mha.set_fastpath_enabled(False)
            model.eval()
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fused)
            for module, mode in modes:
                module.training = mode


def count_depth(model: nn.Module) -> int:
    """Number of trainable layers: modules whose own weight has two dimensions or more."""
    weights = (getattr(module, "weight", None) for module in model.modules())
    return sum(isinstance(w, nn.Parameter) and w.requires_grad and w.ndim > 1 for w in weights)


@dataclass(frozen=True)
class Excess:
    """A limit that a network breaks.

    Attributes:
        of: What is limited, with its unit.
        value: The network's.
        limit: The budget's.
    """

    of: str
    value: int
    limit: float

    def __str__(self) -> str:
        return f"{self.value:,} {self.of} > {self.limit:,.15g}"


@dataclass(frozen=True)
class Budget:
    """Upper limits for a student; None is no limit.

    Attributes:
        max_params: Trainable parameters.
        max_macs: Multiply-adds of one image.
    """

    max_params: float | None = None
    max_macs: float | None = None

    def __post_init__(self) -> None:
        for name, limit in vars(self).items():
            if limit is not None and not limit > 0:
                raise UserError(f"{name} must be above zero, not {limit}")

    def excess(self, model: nn.Module, image_shape: Shape) -> Excess | None:
        """The first limit that a network breaks, or None; MACs are counted only if limited."""
        if self.max_params is not None and (params := count_params(model)) > self.max_params:
            return Excess("params", params, self.max_params)
        if self.max_macs is not None and (macs := count_macs(model, image_shape)) > self.max_macs:
            return Excess("MACs", macs, self.max_macs)
        return None


def parse_count(text: str) -> float:
    """Read a number such as 400000, 0.4M or 1.2G.

    Raises:
        UserError: The text is no such number, or not above zero.
    """
    form = r"(\d+(?:\.\d*)?|\.\d+)(?:e(\d{1,2}))?([KMGB]?)"
    match = re.fullmatch(form, text.strip(), re.ASCII | re.IGNORECASE)
    if not match:
        raise UserError(f"{text!r} is no number such as 400000, 0.4M or 1.2G")
    number, exponent, unit = match.groups()
    value = float(f"{number}e{int(exponent or 0) + _POWERS[unit.upper()]}")
    if not 0 < value < math.inf:
        raise UserError(f"a limit must be above zero and finite, not {text!r}")
    return value


def show_count(number: float) -> str:
    """Write a count with three digits and a unit: 278324 as 278K."""
    rounded = float(f"{number:.3g}")
    for unit, size in (("G", 1e9), ("M", 1e6), ("K", 1e3)):
        if rounded >= size:
            return f"{rounded / size:.15g}{unit}"
    return f"{rounded:g}"
