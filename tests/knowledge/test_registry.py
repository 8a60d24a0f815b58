"""What holds for every row of the table, on made-up observations."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from knowledge.made import THREE, floats, leaves, made, per_sample
from torch import Tensor

from diswot.errors import UserError
from diswot.knowledge.registry import KNOWLEDGE, get_distance

ORDER = torch.tensor([2, 0, 3, 1])
OTHER = ((5, 2, 6), (2, 3, 3), (4, 1, 2), (7, 1, 1))  # widths, grids, number of stages
NOT_ZERO_FOR_ITSELF = {"ab"}

every_row = pytest.mark.parametrize("name", KNOWLEDGE)
every_loss = pytest.mark.parametrize("name", [n for n, r in KNOWLEDGE.items() if r.differentiable])


def value(name: str, teacher: object, student: object) -> float:
    return float(KNOWLEDGE[name].between(teacher, student))


def test_the_table_is_complete() -> None:
    wanted = "semantic semantic_class gradcam relation kd dkd dist fitnet at nst fsp ab ickd kdsvd"
    assert set(wanted.split()) | {"vid", "sp", "rkd", "pkt", "cc", "cka"} <= set(KNOWLEDGE)


@every_row
def test_facts(name: str) -> None:
    row = get_distance(name)
    assert row.distance.__name__ == name
    assert row.summary and len(row.summary) < 60
    assert row.paper or name == "semantic_class"
    assert row.distance.__doc__ and "Args" in row.distance.__doc__ + "Args" * (not row.defaults)


def test_defaults_are_those_of_the_papers() -> None:
    assert get_distance("kd").defaults == {"temperature": 4.0}
    assert get_distance("dkd").defaults == {"alpha": 1.0, "beta": 8.0, "temperature": 4.0}
    assert get_distance("dist").defaults == {"beta": 1.0, "gamma": 1.0, "temperature": 1.0}
    assert get_distance("rkd").defaults == {"distance": 1.0, "angle": 2.0}
    assert get_distance("cc").defaults == {"gamma": 0.4, "order": 2}
    assert get_distance("ab").defaults == {"margin": 1.0}
    assert get_distance("at").defaults == {}


@every_row
def test_zero_for_identical_observations_and_more_for_others(name: str) -> None:
    if name not in NOT_ZERO_FOR_ITSELF:
        assert value(name, made(0), made(0)) == pytest.approx(0, abs=2e-6)
    assert value(name, made(0), made(1)) > 1e-4


@every_row
def test_the_same_bits_again(name: str) -> None:
    assert value(name, made(0), made(1)) == value(name, made(0), made(1))
    assert value(name, made(0), made(1, OTHER[:3])) if not get_distance(name).same_width else True


@every_row
def test_the_order_of_the_batch_does_not_matter(name: str) -> None:
    teacher, student = made(0), made(1)
    turned = [per_sample(seen, lambda tensor: tensor[ORDER]) for seen in (teacher, student)]
    plain = value(name, teacher, student)
    assert value(name, *turned) == pytest.approx(plain, rel=1e-4, abs=1e-6)
    if not name.startswith("semantic"):  # these see the samples only through the class gradient
        assert value(name, teacher, turned[1]) != pytest.approx(plain, rel=1e-3)


@every_row
def test_labels_matter_where_the_row_says_so(name: str) -> None:
    teacher, student = made(0), made(1)
    others = [replace(seen, labels=(seen.labels + 1) % 5) for seen in (teacher, student)]
    blind = [replace(seen, cam_weights=None) for seen in (teacher, student)]
    if name == "dkd":
        assert value(name, *others) != value(name, teacher, student)
    else:  # the others see them through the class gradient or the weights of the maps
        assert value(name, *others) == value(name, teacher, student)
    if get_distance(name).needs_cam:
        with pytest.raises(UserError, match="cam=True"):
            value(name, *blind)
    else:
        assert value(name, *blind) == value(name, teacher, student)
    assert get_distance(name).needs_labels == (
        name in ("semantic", "semantic_class", "gradcam", "dkd")
    )


@every_row
def test_other_widths_grids_and_stages_are_adapted_or_told(name: str) -> None:
    teacher, student = made(0), made(1, OTHER)
    if get_distance(name).same_width:
        with pytest.raises(UserError, match=f"{name} needs"):
            value(name, teacher, student)
    else:
        assert 0 < value(name, teacher, student) < 100
        assert 0 < value(name, student, teacher) < 100


@every_row
def test_other_numbers_of_classes_are_told_where_they_matter(name: str) -> None:
    teacher, student = made(0), made(1, classes=3)
    if get_distance(name).same_classes:
        with pytest.raises(UserError, match=f"{name} needs"):
            value(name, teacher, student)
    else:
        assert value(name, teacher, student) > 0


@every_row
def test_a_distance_with_an_adapter_tells_what_it_needs_without(name: str) -> None:
    row = get_distance(name)
    if row.adapter is not None:
        with pytest.raises(UserError, match=rf"{name} needs .*between\(teacher, student\)"):
            row.distance(made(0), made(1, OTHER))


def flat(tensor: Tensor) -> Tensor:
    return torch.full_like(tensor, 0.1)


@every_loss
@pytest.mark.parametrize("size", [0.0, 1e-30, 1.0, 100.0])
def test_slopes_are_finite_with_zeros_in_every_place(name: str, size: float) -> None:
    student = leaves(made(1), lambda tensor: tensor * size)
    with torch.no_grad():
        for tensor in floats(student):
            tensor[1] = 0
            tensor[:, 1:2] = 0
    loss = KNOWLEDGE[name].between(made(0), student)
    loss.backward()
    slopes = [t.grad for t in floats(student) if t.grad is not None]
    assert loss.isfinite()
    assert slopes
    assert all(slope.isfinite().all() for slope in slopes)
    if size == 1:
        assert any(slope.any() for slope in slopes)


@every_loss
@pytest.mark.parametrize("zero", [0, 1])
@pytest.mark.parametrize("change", [torch.zeros_like, flat])
def test_slopes_are_finite_for_a_network_that_gives_one_value(name: str, zero: int, change) -> None:
    both = [made(0), made(1)]
    both[zero] = leaves(both[zero], change)
    student = leaves(both[1])
    loss = KNOWLEDGE[name].between(both[0], student)
    loss.backward()
    assert loss.isfinite()
    assert all(t.grad is None or t.grad.isfinite().all() for t in floats(student))


@every_loss
@pytest.mark.parametrize("shapes", [THREE, (*OTHER, (5, 4, 3))])
def test_descending_its_slope_lessens_it(name: str, shapes: tuple) -> None:
    if get_distance(name).same_width:
        shapes = ((3, 4, 4), (6, 1, 1))
    teacher = made(0)
    student = leaves(made(1, shapes), lambda tensor: tensor + 0.2)  # no channel is quite off
    loss = KNOWLEDGE[name].between(teacher, student)
    loss.backward()
    steep = sum(float(t.grad.square().sum()) for t in floats(student) if t.grad is not None)
    with torch.no_grad():
        for tensor in floats(student):
            if tensor.grad is not None:
                tensor -= 0.005 * loss / steep * tensor.grad
        assert float(KNOWLEDGE[name].between(teacher, student)) < float(loss)


@every_row
def test_half_precision_is_compared_in_single(name: str) -> None:
    teacher, student = made(0), made(1)
    half = [leaves(seen, lambda tensor: tensor.bfloat16()) for seen in (teacher, student)]
    again = [leaves(seen, lambda tensor: tensor.float()) for seen in half]
    loss = KNOWLEDGE[name].between(*half)
    if name not in ("relation", "semantic", "semantic_class"):
        assert loss.dtype == torch.float32
        expected = float(KNOWLEDGE[name].between(*again).detach())
        assert float(loss.detach()) == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert loss.isfinite()
