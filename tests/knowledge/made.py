"""Made-up observations of several stages, and what is done to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, replace

import torch
from torch import Tensor
from toys import observation

from diswot.observation.observe import Observation

Shape = tuple[int, int, int]

THREE: tuple[Shape, ...] = ((3, 4, 4), (5, 3, 2), (6, 2, 2))


def made(
    seed: int,
    shapes: tuple[Shape, ...] = THREE,
    *,
    size: int = 4,
    classes: int = 5,
    dtype: torch.dtype = torch.float32,
) -> Observation:
    """Rectified maps of these shapes, C x H x W, and the rest to fit the last."""
    generator = torch.Generator().manual_seed(seed)
    maps = tuple(
        torch.randn(size, *shape, generator=generator, dtype=dtype).relu() for shape in shapes
    )
    width = shapes[-1][0]
    seen = observation(seed, size=size, classes=classes, channels=width, dtype=dtype)
    weights = torch.randn(size, width, generator=generator, dtype=dtype)
    pooled = torch.randn(size, width, generator=generator, dtype=dtype)
    return replace(seen, stages=maps, last=maps[-1], head_input=pooled, cam_weights=weights)


def pairs(teacher: Observation, student: Observation) -> list[tuple[Tensor, Tensor]]:
    return list(zip(teacher.stages, student.stages, strict=True))


def per_sample(seen: Observation, change: Callable[[Tensor], Tensor]) -> Observation:
    """The observation with every tensor that has a row a sample changed."""
    changed = {
        field.name: change(getattr(seen, field.name))
        for field in fields(seen)
        if isinstance(getattr(seen, field.name), Tensor) and field.name != "class_gradient"
    }
    return replace(seen, stages=tuple(change(stage) for stage in seen.stages), **changed)


def floats(seen: Observation) -> Iterator[Tensor]:
    """All that a distance may be differentiated in."""
    yield from seen.stages
    yield from (seen.last, seen.head_input, seen.logits, seen.class_gradient)
    if seen.cam_weights is not None:
        yield seen.cam_weights


def leaves(seen: Observation, change: Callable[[Tensor], Tensor] = torch.clone) -> Observation:
    """Fresh leaves that need gradients, one a tensor."""

    def leaf(tensor: Tensor) -> Tensor:
        return change(tensor.detach()).clone().requires_grad_()

    return replace(
        seen,
        stages=tuple(leaf(stage) for stage in seen.stages),
        last=leaf(seen.last),
        head_input=leaf(seen.head_input),
        logits=leaf(seen.logits),
        class_gradient=leaf(seen.class_gradient),
        cam_weights=None if seen.cam_weights is None else leaf(seen.cam_weights),
    )
