"""Candidates that begin alike share what their first modules compute.

Weights are drawn in the order of the modules, from the same seed for each candidate. So two
networks of the same first blocks have the same first weights and activations. A network that says
by a method `chain()` which of its modules run one after the other, from the images on, has those
taken from the candidate before it that are the same: of the same class, fed with the same tensor,
and with equal weights. All of that is checked, so that scores are the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class _Link:
    """What a module was, took and gave."""

    kind: str
    weights: tuple[Tensor, ...]
    taken: Tensor
    given: Tensor
    version: int

    def holds(self, module: nn.Module, images: Tensor, *, first: bool) -> bool:
        """Whether this module would give the same."""
        same = self.taken is images or (first and torch.equal(self.taken, images))
        weights = tuple(module.parameters())
        return (
            same
            and self.given._version == self.version
            and self.kind == repr(module)
            and len(weights) == len(self.weights)
            and all(torch.equal(a, b) for a, b in zip(self.weights, weights, strict=True))
        )


@dataclass
class Chain:
    """The modules that the candidate before ran, with their maps: one path, not a tree.

    In the order of an exhaustive search, where the last choice turns fastest, that is all that the
    next candidate can use.
    """

    links: list[_Link] = field(default_factory=list)

    def through(self, model: nn.Module) -> nn.Module:
        """The same network, which takes from the one before it what is the same.

        Only for scores that look at no module inside those of the chain.
        """
        units: list[nn.Module] = getattr(model, "chain", list)()
        before, self.links = self.links, []
        for place, unit in enumerate(units):
            known = before[place] if place < len(before) else None
            vars(unit)["forward"] = self._reusing(unit, place, known)
        return model

    def _reusing(self, unit: nn.Module, place: int, known: _Link | None) -> Callable[..., Any]:
        own, links = unit.forward, self.links

        def forward(images: Tensor) -> Any:
            if len(links) != place:  # not the first run, or no chain
                return own(images)
            if known is not None and known.holds(unit, images, first=place == 0):
                links.append(known)
                return known.given
            given = own(images)
            links.append(_Link(repr(unit), tuple(unit.parameters()), images, given, given._version))
            return given

        return forward
