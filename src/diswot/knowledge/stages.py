"""Which feature maps of a teacher and of a student are compared: pairs by relative depth.

The levels of two detectors are pairs by stride.

Letters: B images, C channels, H x W positions.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from diswot.errors import UserError
from diswot.observation import functional
from diswot.observation.observe import Observation
from diswot.utils.compat import version_of

Pair = tuple[Tensor, Tensor]


def pair_indices(teacher: int, student: int) -> list[tuple[int, int]]:
    """Pair the stages of two networks by relative depth, from at least one stage each.

    Each stage of the network with fewer stages has one partner, and no two have the same. Stage i
    of n, counted from one, lies at depth i / n. Its partner among N >= n stages is stage i N / n,
    rounded, halves towards the deeper. So the last stages are always a pair. Three stages are
    paired with the second, third and fifth of five; two with the second and third of three; one
    with the last.

    Returns:
        Indices of the teacher and of the student, counted from zero, in order of depth.
    """
    count = min(teacher, student)
    return [(_at(i, count, teacher), _at(i, count, student)) for i in range(1, count + 1)]


def _at(i: int, count: int, stages: int) -> int:
    """Return the index of stage i * stages / count, counted from one, halves rounded up."""
    return (2 * i * stages + count) // (2 * count) - 1


_CLOSE = 0.5  # octaves between the strides of a pair


def pair_strides(teacher: tuple[float, ...], student: tuple[float, ...]) -> list[tuple[int, int]]:
    """Pair the levels of two detectors by stride.

    A pair are two levels, each of which has the stride nearest to the other's, on a logarithmic
    scale. Neither stride is more than the square root of 2 times the other. So the levels of
    strides 4 to 64 and those of strides 8 to 128 have four pairs, 8 to 64. Of several levels of one
    stride, the first of one network is paired with the first of the other, and so on.

    Returns:
        Indices of the teacher and of the student, counted from zero, in order of the stride.

    Raises:
        UserError: There is no pair.
    """

    def gap(i: int, j: int) -> tuple[float, int]:
        turns = teacher[:i].count(teacher[i]), student[:j].count(student[j])
        return abs(math.log2(teacher[i] / student[j])), abs(turns[0] - turns[1])

    levels_t, levels_s = range(len(teacher)), range(len(student))
    nearest = [(i, min(levels_s, key=lambda j: gap(i, j))) for i in levels_t]
    pairs = [
        (i, j)
        for i, j in nearest
        if gap(i, j)[0] <= _CLOSE and i == min(levels_t, key=lambda other: gap(other, j))
    ]
    if not pairs:
        raise UserError(
            "teacher and student have no levels of one stride: "
            f"teacher {_listed(teacher)}, student {_listed(student)}"
        )
    return pairs


def _listed(strides: Sequence[float]) -> str:
    return ", ".join(f"{stride:g}" for stride in strides)


def pair_stages(teacher: Observation, student: Observation) -> list[Pair]:
    """Return the pairs of stages: of two detectors by `pair_strides`, otherwise by depth."""
    if teacher.strides and student.strides:
        indices = pair_strides(teacher.strides, student.strides)
    else:
        indices = pair_indices(len(teacher.stages), len(student.stages))
    return [(teacher.stages[i], student.stages[j]) for i, j in indices]


def comparable_pairs(
    name: str,
    teacher: Observation,
    student: Observation,
    *,
    widths: bool = False,
    grids: bool = False,
) -> list[Pair]:
    """Return the stages as pairs, in float32 or float64, after a check of their shapes.

    Args:
        name: Name of the distance, for the message.
        teacher: Observation with as many stages as the student's.
        student: Observation with as many stages as the teacher's.
        widths: Whether the maps of a pair must have the same number of channels.
        grids: Whether they must have the same height and width.

    Raises:
        UserError: The numbers of stages differ, or the shapes of a pair.
    """
    if len(teacher.stages) != len(student.stages):
        raise UserError(
            f"{name} needs a stage of the student for each of the teacher: "
            f"teacher {len(teacher.stages)}, student {len(student.stages)}; {_HINT}"
        )
    pairs = list(zip(teacher.stages, student.stages, strict=True))
    for map_t, map_s in pairs:
        first, second = tuple(map_t.shape[1:]), tuple(map_s.shape[1:])
        if (widths and first[0] != second[0]) or (grids and first[1:] != second[1:]):
            what = " and ".join(["width"] * widths + ["grid"] * grids)
            raise UserError(
                f"{name} needs maps of one {what} (C x H x W): "
                f"teacher {first}, student {second}; {_HINT}"
            )
    return [(at_least_float32(map_t), at_least_float32(map_s)) for map_t, map_s in pairs]


_HINT = "bring them together with its adapter, KNOWLEDGE[name].between(teacher, student)"


def average(distances: Iterable[Tensor]) -> Tensor:
    """Return the mean of scalars, one for each pair of stages."""
    return torch.stack(list(distances)).mean()


def at_least_float32(values: Tensor) -> Tensor:
    """Convert half precision to float32; leave float32 and float64 as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


R = TypeVar("R")

_CACHE: Any = WeakIdKeyDictionary()


def cached(function: Callable[..., R]) -> Callable[..., R]:
    """Cache a function of a tensor while the tensor lives and is not overwritten.

    So what a distance computes of the teacher alone is computed once a search, not once a
    candidate. A tensor that requires gradients is never cached. The function may have settings
    that can be hashed.
    """

    @functools.wraps(function)
    def lookup(values: Tensor, *settings: object) -> R:
        if values.requires_grad or values.is_inference():
            return function(values, *settings)
        results = _CACHE.setdefault(values, {})
        key = function, settings, version_of(values)
        if key not in results:
            results[key] = function(values, *settings)
        return cast(R, results[key])

    return lookup


_magnitude = cached(functional.magnitude)


def rescaled(values: Tensor) -> Tensor:
    """Return huge or tiny features `rescaled`, others as they are."""
    return functional.rescaled(values, _magnitude(values))


relation_matrix = cached(functional.relation_matrix)


@cached
def channel_gram(maps: Tensor) -> Tensor:
    """Return the inner products of all pairs of channels, B x C x C, of maps in a safe range."""
    rows = rescaled(maps).flatten(2)
    return rows @ rows.mT


_SLICE_ENTRIES = 2**17


def slices(*maps: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Iterate over slices of a few images; with a graph or on a GPU over all images at once.

    Slices stay in the processor's cache. Allocating results of the whole size would take longer
    than the arithmetic.
    """
    first = maps[0]
    if any(m.requires_grad or m.device.type != "cpu" for m in maps):
        return iter([maps])
    count = max(1, _SLICE_ENTRIES * len(first) // max(1, first.numel()))
    return zip(*(torch.split(m, count) for m in maps), strict=True)


def centred(rows: Tensor) -> Tensor:
    """Subtract the mean from each row; zero where the rest is rounding error."""
    rest = rows - rows.mean(1, keepdim=True)
    noise = 8 * torch.finfo(rows.dtype).eps * rows.detach().abs().amax(1, keepdim=True)
    return rest * (rest.detach().abs().amax(1, keepdim=True) > noise)
