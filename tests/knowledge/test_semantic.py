from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from knowledge import naive
from reference import semantic_distance
from toys import LinearHead, batch, observation, seeded

from diswot.errors import UserError
from diswot.knowledge.semantic import semantic, semantic_class
from diswot.observation.observe import observe

quick = settings(derandomize=True, deadline=None, max_examples=25, database=None)
dtypes = st.sampled_from([torch.float32, torch.float64])


@quick
@given(dtypes, st.integers(0, 10**6), st.integers(1, 7), st.integers(1, 20))
def test_equals_the_correlation_matrices(
    dtype: torch.dtype, seed: int, classes: int, channels: int
) -> None:
    teacher = observation(seed, classes=classes, channels=channels, dtype=dtype)
    student = observation(seed + 1, classes=classes, channels=channels, dtype=dtype)
    expected = semantic_distance(teacher.class_gradient, student.class_gradient, eps=1e-12)
    assert float(semantic(teacher, student)) == pytest.approx(expected, abs=1e-6)


@quick
@given(st.integers(0, 10**6), st.lists(st.floats(-9, 0), min_size=5, max_size=5))
def test_rows_of_tiny_gradients_are_not_brought_to_unit_length(
    seed: int, sizes: list[float]
) -> None:
    teacher, student = observation(seed), observation(seed + 1)
    tiny = student.class_gradient * 10 ** torch.tensor(sizes)[:, None]
    expected = semantic_distance(teacher.class_gradient, tiny, eps=1e-12)
    faded = semantic(teacher, replace(student, class_gradient=tiny))
    assert float(faded) == pytest.approx(expected, abs=1e-6)


def test_a_class_of_vanishing_gradient_counts_as_having_none() -> None:
    teacher, student = observation(0), observation(1)
    gone, none = (replace(student, class_gradient=s * student.class_gradient) for s in (1e-20, 0))
    assert float(semantic(teacher, gone)) == pytest.approx(float(semantic(teacher, none)))


def test_by_hand() -> None:
    teacher, student = observation(0, classes=2, channels=2), observation(1, classes=2, channels=2)
    teacher = replace(teacher, class_gradient=torch.tensor([[3.0, 4.0], [1.0, 0.0]]))
    student = replace(student, class_gradient=torch.tensor([[4.0, 3.0], [0.0, -1.0]]))
    # 2 - 2 * 24/25 for the first class, 1/2 + 1/2 for the second
    assert float(semantic(teacher, student)) == pytest.approx((0.08 + 1.0) / 2, abs=1e-6)


def test_only_the_class_gradient_counts_and_not_its_scale() -> None:
    teacher, student = observation(0), observation(1)
    other = replace(observation(2, size=7, grid=3), class_gradient=5 * student.class_gradient)
    assert float(semantic(teacher, other)) == pytest.approx(float(semantic(teacher, student)))


def test_symmetric() -> None:
    forth, back = (semantic(observation(a), observation(1 - a)) for a in (0, 1))
    assert float(forth) == pytest.approx(float(back))


def test_the_order_of_the_batch_does_not_matter() -> None:
    images, labels = batch()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    teacher, student = seeded(LinearHead, 0), seeded(LinearHead, 1)
    plain, other = (
        semantic(observe(teacher, x, y), observe(student, x, y))
        for x, y in ((images, labels), (images[order], labels[order]))
    )
    assert float(plain) > 0.1
    assert float(other) == pytest.approx(float(plain), abs=1e-5)


@pytest.mark.parametrize("wrong", [{"channels": 5}, {"classes": 3}])
def test_other_shapes_are_told(wrong: dict[str, int]) -> None:
    with pytest.raises(UserError, match=r"teacher \(5, 6\), student \((5, 5|3, 6)\)"):
        semantic(observation(0), observation(1, **wrong))


@quick
@given(dtypes, st.integers(0, 10**6), st.integers(1, 7), st.integers(1, 9), st.integers(1, 9))
def test_classes_equal_the_loops_for_any_widths(
    dtype: torch.dtype, seed: int, classes: int, wide: int, narrow: int
) -> None:
    teacher = observation(seed, classes=classes, channels=wide, dtype=dtype)
    student = observation(seed + 1, classes=classes, channels=narrow, dtype=dtype)
    expected = naive.semantic_class(teacher.class_gradient, student.class_gradient)
    assert float(semantic_class(teacher, student)) == pytest.approx(expected, abs=1e-6)


def test_classes_by_hand() -> None:
    # Cosines 1, 24/25 against 1, 0: two entries of four differ by 24/25.
    teacher = replace(observation(0), class_gradient=torch.tensor([[3.0, 4.0], [4.0, 3.0]]))
    student = replace(observation(1), class_gradient=torch.tensor([[0, 2.0, 0], [1.0, 0, 0]]))
    assert float(semantic_class(teacher, student)) == pytest.approx(0.96**2 / 2, abs=1e-6)
