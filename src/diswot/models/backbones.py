"""Classifiers as backbones: without their classifier, as the maps that end their stages.

Letters: B images, C channels, h x w positions of a map, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from diswot.errors import UserError
from diswot.observation.hooks import Trace, run
from diswot.observation.modes import measuring


class StageEnd(NamedTuple):
    """The module that ends a resolution stage.

    Attributes:
        name: Name of the module.
        channels: Channels of its map.
        stride: Height of the images over that of the map.
    """

    name: str
    channels: int
    stride: float


class StageMaps(nn.Module):
    """A classifier without its last layer, as the maps that end its stages, by their names."""

    def __init__(self, network: nn.Module, names: Mapping[str, str]) -> None:
        super().__init__()
        self.network, self.names = network, dict(names)
        self._maps: dict[str, Tensor] = {}
        for place, name in self.names.items():
            network.get_submodule(name).register_forward_hook(partial(self._keep, place))

    def _keep(self, place: str, module: nn.Module, inputs: object, output: Any) -> None:
        self._maps[place] = output

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the maps by name, B x C x h x w each, from the largest to the smallest."""
        self._maps.clear()
        self.network(images)
        maps = {place: self._maps[place] for place in self.names}
        self._maps.clear()
        return maps


def split_at_plus(parts: str, example: str) -> tuple[str, str]:
    """Split a text at its last plus into the name of a backbone and that of what stands on it.

    The example is a whole name for the error, such as
    `dense:mobilenet+lraspp`.

    Raises:
        UserError: There is no plus.
    """
    backbone, plus, top = parts.rpartition("+")
    if not plus:
        raise UserError(f"{example.partition(':')[0]}:{parts} has no plus; such as {example}")
    return backbone, top


def remove_classifier(network: nn.Module, img_size: int, name: str) -> list[StageEnd]:
    """Replace a network's classifier by the identity, and return the ends of its stages.

    The network is changed in place; it may be on the meta device. The name is for the error.

    Raises:
        UserError: Its classifier is no linear layer, or it has no two maps of different sizes.
    """
    device = next(network.parameters()).device
    with torch.no_grad(), measuring(network):
        trace = run(network, torch.zeros(2, 3, img_size, img_size, device=device), {})
    _remove(network, trace, name)
    stages = [
        StageEnd(each.name, each.map.shape[1], img_size / each.map.shape[2])
        for each in trace.stage_maps
        if not each.after_pooling and each.origin is each.map
    ]
    if len(stages) < 2:
        raise UserError(f"a network of {name} has no two maps of different sizes")
    return stages


def _remove(network: nn.Module, trace: Trace, name: str) -> None:
    logits = trace.logits
    assert logits is not None
    heads = [each for each, head in trace.heads.items() if head.output.shape == logits.shape]
    if not heads:
        raise UserError(f"a network of {name} has no linear classifier to remove")
    parent, _, child = heads[-1].rpartition(".")
    setattr(network.get_submodule(parent), child, nn.Identity())
