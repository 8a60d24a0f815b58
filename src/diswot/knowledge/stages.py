"""Which feature maps of a teacher and of a student are compared: pairs by relative depth."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from diswot.errors import UserError
from diswot.observation import functional
from diswot.observation.observe import Observation

Pair = tuple[Tensor, Tensor]


def pair_indices(teacher: int, student: int) -> list[tuple[int, int]]:
    """Pair the stages of two networks by relative depth.

    Every stage of the network with fewer has one partner, no two the same. Stage i of n, counted
    from one, lies at depth i / n; its partner among N >= n is stage i N / n, rounded, the deeper
    one of two as near. So the last stages are always a pair. Three stages go with the second,
    third and fifth of five; two with the second and third of three; one with the last.

    Args:
        teacher: Number of stages, at least one.
        student: Likewise.

    Returns:
        Indices, counted from zero, of the teacher and of the student, in order of depth.
    """
    count = min(teacher, student)
    return [(_at(i, count, teacher), _at(i, count, student)) for i in range(1, count + 1)]


def _at(i: int, count: int, stages: int) -> int:
    """Index of stage i * stages / count, counted from one, halves rounded up."""
    return (2 * i * stages + count) // (2 * count) - 1


def pair(teacher: Sequence[Tensor], student: Sequence[Tensor]) -> list[Pair]:
    """The maps that have a partner, with it."""
    return [(teacher[i], student[j]) for i, j in pair_indices(len(teacher), len(student))]


def matched(
    name: str,
    teacher: Observation,
    student: Observation,
    *,
    widths: bool = False,
    grids: bool = False,
) -> list[Pair]:
    """The stages as pairs, in single precision at least, after a check that they are comparable.

    Args:
        name: Of the distance, for the message.
        teacher: With as many stages as the student.
        student: Likewise.
        widths: Whether the maps of a pair need as many channels.
        grids: Whether they need as many rows and columns.

    Raises:
        UserError: The stages differ in number, or a pair in what is needed.
    """
    if len(teacher.stages) != len(student.stages):
        raise UserError(
            f"{name} needs a stage of the student for each of the teacher: "
            f"teacher {len(teacher.stages)}, student {len(student.stages)}; {_HINT}"
        )
    pairs = list(zip(teacher.stages, student.stages, strict=True))
    for ours, theirs in pairs:
        first, second = tuple(ours.shape[1:]), tuple(theirs.shape[1:])
        if (widths and first[0] != second[0]) or (grids and first[1:] != second[1:]):
            what = " and ".join(["width"] * widths + ["grid"] * grids)
            raise UserError(
                f"{name} needs maps of one {what} (C x H x W): "
                f"teacher {first}, student {second}; {_HINT}"
            )
    return [(single(ours), single(theirs)) for ours, theirs in pairs]


_HINT = "bring them together with its adapter, KNOWLEDGE[name].between(teacher, student)"


def average(distances: Iterable[Tensor]) -> Tensor:
    """Mean of scalars, one a pair of stages."""
    return torch.stack(list(distances)).mean()


def single(values: Tensor) -> Tensor:
    """The same in single precision, or in double if it is."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


R = TypeVar("R")

_KNOWN: Any = WeakIdKeyDictionary()


def once(function: Callable[..., R]) -> Callable[..., R]:
    """Remember a function of a tensor for as long as the tensor lives and is not overwritten.

    So that what a distance computes of the teacher is computed once a search, not once a
    candidate. Only where there is no graph.
    """

    @functools.wraps(function)
    def remembered(values: Tensor, *settings: object) -> R:
        if values.requires_grad or values.is_inference():
            return function(values, *settings)
        known = _KNOWN.setdefault(values, {})
        key = function, settings, values._version
        if key not in known:
            known[key] = function(values, *settings)
        return cast(R, known[key])

    return remembered


_magnitude = once(functional.magnitude)


def moderate(values: Tensor) -> Tensor:
    """As `similarity.moderate`, with the largest value remembered."""
    return functional.moderate(values, _magnitude(values))


@once
def sample_gram(features: Tensor) -> Tensor:
    """Inner products of all pairs of samples, B x B, of moderate features B x ..."""
    return functional.gram(moderate(features))


@once
def channel_gram(maps: Tensor) -> Tensor:
    """Inner products of all pairs of channels, B x C x C, of moderate maps B x C x H x W."""
    rows = moderate(maps).flatten(2)
    return rows @ rows.mT


_NUMBERS = 2**17  # of a slice


def slices(*maps: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Maps of one shape, a few samples at a time where that is quicker; else all at once.

    Without a graph, on a processor, so that what is computed of a slice stays in its cache. Fresh
    memory for the whole would take longer than the arithmetic.
    """
    first = maps[0]
    if any(m.requires_grad or m.device.type != "cpu" for m in maps):
        return iter([maps])
    count = max(1, _NUMBERS * len(first) // max(1, first.numel()))
    return zip(*(torch.split(m, count) for m in maps), strict=True)


def centred(values: Tensor, dim: int) -> Tensor:
    """Less the mean along a dimension; zero where what is left is no more than rounding."""
    left = values - values.mean(dim, keepdim=True)
    noise = 8 * torch.finfo(values.dtype).eps * values.detach().abs().amax(dim, keepdim=True)
    return left * (left.detach().abs().amax(dim, keepdim=True) > noise)
