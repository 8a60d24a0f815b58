"""How big a network is, and limits on that.

Conventions: parameters are all trainable ones; 1 MAC is one multiply-add, counted on one image in
convolutions and matrix products (attention included), with bias, normalisation, activation and
pooling left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from diswot.errors import UserError

Shape = tuple[int, int, int]

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "B": 10**9}


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
    modes = [(module, module.training) for module in model.modules()]
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    try:
        model.eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, *image_shape, device=device))
    finally:
        for module, mode in modes:
            module.training = mode
    return int(counter.get_total_flops()) // 2


def count_depth(model: nn.Module) -> int:
    """Number of trainable layers: modules whose own weight has two dimensions or more."""
    weights = (getattr(module, "weight", None) for module in model.modules())
    return sum(isinstance(w, nn.Parameter) and w.requires_grad and w.ndim > 1 for w in weights)


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

    def excess(self, model: nn.Module, image_shape: Shape) -> str | None:
        """Say which limit a network breaks and by how much, or None; MACs only if limited."""
        if self.max_params is not None and (params := count_params(model)) > self.max_params:
            return f"{show_count(params)} params > {show_count(self.max_params)}"
        if self.max_macs is not None and (macs := count_macs(model, image_shape)) > self.max_macs:
            return f"{show_count(macs)} MACs > {show_count(self.max_macs)}"
        return None


def parse_count(text: str) -> float:
    """Read a number such as 400000, 0.4M or 1.2G.

    Raises:
        UserError: The text is no such number, or not above zero.
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)(?:e(\d{1,2}))?([KMGB]?)", text.strip(), re.I)
    if not match:
        raise UserError(f"{text!r} is no number such as 400000, 0.4M or 1.2G")
    number, exponent, unit = match.groups()
    value = float(number) * 10 ** int(exponent or 0) * _UNITS[unit.upper()]
    if not value > 0:
        raise UserError(f"a limit must be above zero, not {text}")
    return value


def show_count(number: float) -> str:
    """Write a count with three digits and a unit: 278324 as 278K."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("K", 1e3)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.4g}"
