from __future__ import annotations

import itertools
import weakref
from dataclasses import replace

import pytest
import torch
from knowledge.made import THREE, made
from torch import Tensor

from diswot.errors import UserError
from diswot.knowledge import stages
from diswot.knowledge.stages import (
    at_least_float32,
    average,
    cached,
    centred,
    comparable_pairs,
    pair_indices,
    pair_stages,
    pair_strides,
)


@pytest.mark.parametrize(
    ("teacher", "student", "expected"),
    [
        (1, 1, [(0, 0)]),
        (3, 3, [(0, 0), (1, 1), (2, 2)]),
        (3, 5, [(0, 1), (1, 2), (2, 4)]),  # depths 5/3, 10/3, 5 of five: second, third, fifth
        (5, 3, [(1, 0), (2, 1), (4, 2)]),
        (3, 4, [(0, 0), (1, 2), (2, 3)]),  # 4/3, 8/3, 4
        (4, 5, [(0, 0), (1, 2), (2, 3), (3, 4)]),  # 5/4, 5/2, 15/4, 5: the half goes deeper
        (2, 3, [(0, 1), (1, 2)]),  # 3/2, 3
        (3, 1, [(2, 0)]),
        (1, 5, [(0, 4)]),
        (2, 5, [(0, 2), (1, 4)]),
    ],
)
def test_pairs_by_hand(teacher: int, student: int, expected: list[tuple[int, int]]) -> None:
    assert pair_indices(teacher, student) == expected


def test_pairs_are_in_order_distinct_and_end_with_the_last() -> None:
    for teacher, student in itertools.product(range(1, 9), repeat=2):
        found = pair_indices(teacher, student)
        assert len(found) == min(teacher, student)
        for indices, count in zip(zip(*found, strict=True), (teacher, student), strict=True):
            assert list(indices) == sorted(set(indices))
            assert indices[-1] == count - 1 and indices[0] >= 0
        assert [(j, i) for i, j in found] == pair_indices(student, teacher)


def test_maps_are_paired_as_their_indices_are() -> None:
    teacher, student = made(0), made(1, THREE[:2])
    ours, theirs = pair_stages(teacher, student)
    assert ours[0] is teacher.stages[1] and ours[1] is student.stages[0]
    assert theirs[0] is teacher.stages[2] and theirs[1] is student.stages[1]


@pytest.mark.parametrize(
    ("teacher", "student", "expected"),
    [
        ((4, 8, 16, 32, 64), (8, 16, 32, 64, 128), [(1, 0), (2, 1), (3, 2), (4, 3)]),
        ((8, 16), (8, 16), [(0, 0), (1, 1)]),
        ((16, 32, 64, 106.7, 160, 320), (8, 16, 32, 64, 128), [(0, 1), (1, 2), (2, 3), (3, 4)]),
        ((8, 16, 32), (12, 16, 23), [(1, 1), (2, 2)]),  # 12 is nearer to 16, which has its own
        ((32,), (4, 8, 16, 32), [(0, 3)]),
        ((32, 32, 64), (32, 32, 64), [(0, 0), (1, 1), (2, 2)]),
        ((32, 32, 64), (16, 32, 64), [(0, 1), (2, 2)]),
        ((8,), (5.7,), [(0, 0)]),  # 0.49 octaves
    ],
)
def test_levels_of_detectors_are_pairs_by_stride(
    teacher: tuple[float, ...], student: tuple[float, ...], expected: list[tuple[int, int]]
) -> None:
    assert pair_strides(teacher, student) == expected
    assert pair_strides(student, teacher) == [(j, i) for i, j in expected]


def test_detectors_without_levels_of_one_stride_are_told() -> None:
    with pytest.raises(UserError, match=r"of one stride: teacher 4, 8, student 16, 32\.5"):
        pair_strides((4, 8), (16, 32.5))


def test_maps_of_detectors_are_paired_by_stride_and_others_by_depth() -> None:
    teacher, student = replace(made(0), strides=(4, 8, 16)), made(1)
    deeper = replace(student, strides=(8, 16, 32))
    first, second = pair_stages(teacher, deeper)
    assert first[0] is teacher.stages[1] and first[1] is deeper.stages[0]
    assert second[0] is teacher.stages[2] and second[1] is deeper.stages[1]
    assert pair_stages(teacher, student)[0][0] is teacher.stages[0]


def test_other_numbers_of_stages_are_told() -> None:
    with pytest.raises(UserError, match=r"some needs a stage .*: teacher 3, student 2;.*adapter"):
        comparable_pairs("some", made(0), made(1, THREE[:2]))


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"widths": True}, r"one width .*: teacher \(3, 4, 4\), student \(4, 4, 4\)"),
        ({"grids": True}, r"one grid .*: teacher \(5, 3, 2\), student \(5, 3, 3\)"),
        ({"widths": True, "grids": True}, "one width and grid"),
    ],
)
def test_other_shapes_are_told_where_they_matter(wanted: dict[str, bool], message: str) -> None:
    student = made(1, ((4, 4, 4), (5, 3, 3), (6, 2, 2)))
    assert len(comparable_pairs("some", made(0), student)) == 3
    with pytest.raises(UserError, match=message):
        comparable_pairs("some", made(0), student, **wanted)


def test_half_precision_is_raised_and_double_kept() -> None:
    values = torch.ones(2)
    kinds = [torch.bfloat16, torch.float16, torch.float32, torch.float64]
    assert [at_least_float32(values.to(kind)).dtype for kind in kinds] == [
        *[torch.float32] * 3,
        kinds[3],
    ]
    half = replace(made(0), stages=tuple(stage.bfloat16() for stage in made(0).stages))
    assert {m.dtype for maps in comparable_pairs("some", half, half) for m in maps} == {
        torch.float32
    }


def test_what_is_known_of_a_tensor_is_not_computed_again() -> None:
    calls = []

    @cached
    def total(values: Tensor, power: int = 1) -> Tensor:
        """Documented."""
        calls.append(power)
        return values.pow(power).sum()

    values = torch.ones(3)
    assert [float(total(values)) for _ in range(3)] == [3, 3, 3]
    assert float(total(torch.ones(3))) == 3
    assert float(total(values, 2)) == float(total(values, 2)) == 3
    assert calls == [1, 1, 2]
    values += 1
    assert float(total(values)) == 6
    assert total.__doc__ == "Documented."
    learned = torch.ones(3, requires_grad=True)
    total(learned).backward()
    total(learned).backward()
    assert torch.equal(learned.grad, torch.full((3,), 2.0))
    with torch.inference_mode():
        assert float(total(torch.ones(2))) == 2


def test_nothing_outlives_its_tensor() -> None:
    kept = []
    values, before = torch.ones(3), len(stages._CACHE)
    remembered = cached(lambda values: kept.append(weakref.ref(values)) or Tensor())
    remembered(values)
    assert len(stages._CACHE) == before + 1
    del values
    assert len(stages._CACHE) == before
    assert kept[0]() is None


def test_centred_rows_lose_their_mean_and_constant_ones_everything() -> None:
    values = torch.tensor([[1.0, 3.0], [0.1, 0.1], [0.0, 0.0]])
    assert torch.equal(centred(values), torch.tensor([[-1.0, 1.0], [0.0, 0.0], [0.0, 0.0]]))
    softmax = torch.full((1, 7), 3.3).softmax(1)
    assert not centred(softmax).any()


def test_average_is_the_mean() -> None:
    assert float(average(torch.tensor(v) for v in (1.0, 2.0, 6.0))) == 3
