from __future__ import annotations

import pytest
import torch
from knowledge import naive
from knowledge.made import THREE, made, pairs

from diswot.errors import UserError
from diswot.knowledge.adapters import Adapter, LearnedAdapter, adapt, on_one_grid, orthogonal

WIDE = ((4, 5, 5), (7, 3, 2), (2, 1, 2), (9, 1, 1))
MAPS = Adapter(grids=True, widths=True)
ALWAYS = Adapter(grids=True, widths=True, always=True)


def shapes(seen: object) -> list[tuple[int, ...]]:
    return [tuple(stage.shape[1:]) for stage in seen.stages]


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize(
    ("adapter", "ours", "theirs"),
    [
        (Adapter(), list(THREE), [WIDE[0], WIDE[2], WIDE[3]]),
        (Adapter("last"), [THREE[2]], [WIDE[3]]),
        (Adapter("middle"), [THREE[1]], [WIDE[2]]),
        (
            Adapter(grids=True),
            [(3, 4, 4), (5, 1, 2), (6, 1, 1)],
            [(4, 4, 4), (2, 1, 2), (9, 1, 1)],
        ),
        (Adapter(widths=True), list(THREE), [(3, 5, 5), (5, 1, 2), (6, 1, 1)]),
        (Adapter("last", grids=True, widths=True), [(6, 1, 1)], [(6, 1, 1)]),
    ],
)
def test_shapes(adapter: Adapter, ours: list, theirs: list, learned: bool) -> None:
    teacher, student = made(0), made(1, WIDE)
    both = (
        LearnedAdapter(adapter, teacher, student)(teacher, student)
        if learned
        else adapt(adapter, teacher, student)
    )
    assert [shapes(seen) for seen in both] == [ours, theirs]


def test_only_the_stages_change() -> None:
    teacher, student = made(0), made(1, WIDE)
    for before, after in zip((teacher, student), adapt(MAPS, teacher, student), strict=True):
        assert after.last is before.last
        assert after.head_input is before.head_input
        assert after.logits is before.logits
        assert after.class_gradient is before.class_gradient


def test_equal_shapes_stay_the_same_tensors() -> None:
    teacher, student = made(0), made(1)
    before = pairs(teacher, student)
    for after in pairs(*adapt(ALWAYS, teacher, student)):
        assert any(after[0] is a and after[1] is b for a, b in before)


def test_the_middle_of_two_is_the_deeper() -> None:
    teacher, student = made(0), made(1, THREE[:2])
    ours, theirs = adapt(Adapter("middle"), teacher, student)
    assert ours.stages[0] is teacher.stages[2]
    assert theirs.stages[0] is student.stages[1]


def test_the_last_pair_does_with_a_single_stage_too() -> None:
    teacher, student = made(0), made(1, THREE[:1])
    for stages in ("all", "middle", "last"):
        ours, theirs = adapt(Adapter(stages), teacher, student)
        assert [seen.stages[0] for seen in (ours, theirs)] == [teacher.stages[2], student.stages[0]]


@pytest.mark.parametrize("grid", [(1, 1), (2, 3), (5, 7), (2, 7)])
def test_pooling_equals_the_mean_of_cells(grid: tuple[int, int]) -> None:
    maps = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    expected = naive.pooled(maps, *grid).float()
    pooled, _ = on_one_grid(maps, torch.zeros(2, 1, *grid))
    torch.testing.assert_close(pooled, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("outputs", "inputs"), [(6, 6), (6, 2), (2, 6), (1, 5)])
def test_orthogonal_matrices_keep_lengths_or_project(outputs: int, inputs: int) -> None:
    matrix = orthogonal(outputs, inputs, torch.Generator().manual_seed(1))
    assert matrix.shape == (outputs, inputs)
    few = matrix.T @ matrix if inputs <= outputs else matrix @ matrix.T
    torch.testing.assert_close(few, torch.eye(min(outputs, inputs)), rtol=1e-5, atol=1e-6)
    again = orthogonal(outputs, inputs, torch.Generator().manual_seed(1))
    other = orthogonal(outputs, inputs, torch.Generator().manual_seed(2))
    assert torch.equal(matrix, again)
    assert inputs == outputs == 1 or not torch.allclose(matrix, other)


def test_the_projection_depends_on_the_widths_alone() -> None:
    teacher, student, other = made(0), made(1, WIDE), made(2, WIDE)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first, second = (adapt(MAPS, teacher, seen)[1] for seen in (student, other))
    assert torch.equal(torch.get_rng_state(), state)
    for seen, raw in ((first, student), (second, other)):
        flat = raw.stages[3].flatten(1)
        matrix = torch.linalg.lstsq(flat, seen.stages[2].flatten(1)).solution
        assert torch.allclose(flat @ matrix, seen.stages[2].flatten(1), atol=1e-5)
    both = adapt(Adapter("last", widths=True), teacher, student)[1].stages[0]
    assert torch.equal(both, first.stages[2])


def test_a_wider_teacher_is_met_without_loss_of_length() -> None:
    teacher, student = made(0), made(1, ((2, 4, 4), (3, 3, 2), (6, 2, 2)))
    adapted = adapt(MAPS, teacher, student)[1]
    for before, after in zip(student.stages, adapted.stages, strict=True):
        torch.testing.assert_close(before.norm(dim=1), after.norm(dim=1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("adapter", [Adapter(), Adapter(grids=True), MAPS, ALWAYS])
def test_a_learned_adapter_starts_as_the_fixed_one(adapter: Adapter) -> None:
    teacher, student = made(0), made(1, WIDE)
    state = torch.get_rng_state()
    learned = LearnedAdapter(adapter, teacher, student)
    assert torch.equal(torch.get_rng_state(), state)
    fixed = pairs(*adapt(adapter, teacher, student))
    for (a, b), (c, d) in zip(fixed, pairs(*learned(teacher, student)), strict=True):
        torch.testing.assert_close(a, c)
        torch.testing.assert_close(b, d, rtol=1e-5, atol=1e-5)


def test_a_learned_adapter_can_fit_a_map() -> None:
    teacher, student = made(0), made(1, WIDE)
    learned = LearnedAdapter(MAPS, teacher, student)
    optimiser = torch.optim.SGD(learned.parameters(), 0.1)
    losses = []
    for _ in range(20):
        loss = naive_error(*learned(teacher, student))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    assert losses == sorted(losses, reverse=True)


def naive_error(teacher: object, student: object) -> torch.Tensor:
    return sum((a - b).square().mean() for a, b in pairs(teacher, student))


@pytest.mark.parametrize("stages", ["all", "middle", "last"])
def test_the_summary_tells_everything(stages: str) -> None:
    assert stages in Adapter(stages).summary
    assert "pool" not in Adapter(stages).summary
    text = Adapter(stages, grids=True, widths=True).summary
    assert "pooled to the smaller grid" in text
    assert "fixed orthogonal projection (proxy), learned 1x1 (loss)" in text
    assert "other widths" in text
    assert "other widths" not in Adapter(widths=True, always=True).summary


def test_unknown_stages_are_told() -> None:
    with pytest.raises(UserError, match="unknown stages of an adapter 'lats'; did you mean last"):
        adapt(Adapter("lats"), made(0), made(1))
