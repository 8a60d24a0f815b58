"""What holds for every row of the table, on made-up observations."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from knowledge.made import THREE, floats, leaves, made, per_sample
from torch import Tensor

from diswot.errors import UserError
from diswot.knowledge.registry import KNOWLEDGE, get_distance
from diswot.observation.observe import Observation

ORDER = torch.tensor([2, 0, 3, 1])
OTHER = ((5, 2, 6), (2, 3, 3), (4, 1, 2), (7, 1, 1))  # widths, grids, number of stages
OTHER_WIDTH, OTHER_GRID = ((4, 4, 4), *THREE[1:]), ((3, 4, 5), *THREE[1:])
NOT_ZERO_FOR_ITSELF = {"ab", "wttm"}
STANDARDISED = {"kd_standardised", "dkd_standardised", "dist_standardised"}
ONE_NUMBER_OF_CLASSES = {
    *{"semantic", "semantic_class", "kd", "dkd", "dist", "wttm", "mlkd"},
    *STANDARDISED,
}
SCALE_COUNTS = {"kd", "dkd", "dist", "wttm", "mlkd", "fitnet", "fsp", "ab", "vid", "cwd", "mgd"}

# What a distance compares, as its docstring or that of its module names it.
PARTS = ("`stages`", "`logits`", "`head_input`", "class gradient", "last map", "last feature map")

every_row = pytest.mark.parametrize("name", KNOWLEDGE)


def value(name: str, teacher: Observation, student: Observation) -> float:
    return float(KNOWLEDGE[name].between(teacher, student))


def test_the_table_is_complete() -> None:
    wanted = "semantic semantic_class gradcam relation kd dkd dist fitnet at nst fsp ab ickd kdsvd"
    wanted += " vid sp rkd pkt cc cka wttm mlkd cwd pkd mgd"
    assert set(wanted.split()) | STANDARDISED <= set(KNOWLEDGE)


def test_facts() -> None:
    for name in KNOWLEDGE:
        row = get_distance(name)
        assert row.distance.__name__ == name
        assert row.summary and len(row.summary) < 60
        assert row.paper or name == "semantic_class"
        described = f"{inspect.getmodule(row.distance).__doc__} {row.distance.__doc__}"
        assert any(part in described for part in PARTS), name


def test_defaults_are_those_of_the_papers() -> None:
    assert get_distance("kd").defaults == {"temperature": 4.0}
    assert get_distance("dkd").defaults == {"alpha": 1.0, "beta": 2.0, "temperature": 4.0}
    assert get_distance("kd_standardised").defaults == {"temperature": 2.0}
    assert get_distance("dkd_standardised").defaults == {
        "alpha": 1.0, "beta": 2.0, "temperature": 2.0,
    }  # fmt: skip
    assert get_distance("wttm").defaults == {"temperature": 5.0}
    assert get_distance("mlkd").defaults == {"temperature": 4.0}
    assert get_distance("cwd").defaults == {"temperature": 4.0}
    assert get_distance("dist").defaults == {"beta": 1.0, "gamma": 1.0, "temperature": 1.0}
    assert get_distance("rkd").defaults == {"distance": 1.0, "angle": 2.0}
    assert get_distance("cc").defaults == {"gamma": 0.4, "order": 2}
    assert get_distance("ab").defaults == {"margin": 1.0}
    assert get_distance("at").defaults == {}


def test_published_weights() -> None:
    published = {name: row.published for name, row in KNOWLEDGE.items() if row.published}
    weights = {name: (each.weight, each.cross_entropy) for name, each in published.items()}
    assert weights == {
        "kd": (0.9, 0.1), "kd_standardised": (9, 0.1), "mlkd": (0.9, 0.1),
        "dkd": (1, 1), "dkd_standardised": (9, 1), "dist": (2, 1), "wttm": (4, 1),
        "cwd": (3, 1), "pkd": (6, 1), "sp": (3000, 1), "rkd": (25, 1),
    }  # fmt: skip
    ramps = {name: 240 * each.ramp for name, each in published.items() if each.ramp}
    assert ramps == {"dkd": 20, "dkd_standardised": 20}


@every_row
def test_zero_for_identical_observations_and_more_for_others(name: str) -> None:
    if name not in NOT_ZERO_FOR_ITSELF:
        assert value(name, made(0), made(0)) == pytest.approx(0, abs=2e-6)
    assert value(name, made(0), made(1)) > 1e-4


@every_row
def test_the_order_of_the_batch_does_not_matter(name: str) -> None:
    teacher, student = made(0), made(1)
    turned = [per_sample(seen, lambda tensor: tensor[ORDER]) for seen in (teacher, student)]
    plain = value(name, teacher, student)
    assert value(name, *turned) == pytest.approx(plain, rel=1e-4, abs=1e-6)
    if not name.startswith("semantic"):  # these see the images through the class gradient alone
        assert value(name, teacher, turned[1]) != pytest.approx(plain, rel=1e-3)


@pytest.mark.parametrize("name", [name for name in KNOWLEDGE if name not in SCALE_COUNTS])
def test_neither_sign_nor_scale_counts(name: str) -> None:
    """Maps are rectified, but features may have any sign: only `kdsvd` sees maps up to sign."""
    teacher, student = made(0), made(1)
    size = -1e30 if name == "kdsvd" else 1e30
    other = replace(
        student,
        stages=tuple(size * stage for stage in student.stages),
        last=size * student.last,
        head_input=1e30 * student.head_input,
        class_gradient=5 * student.class_gradient,
        cam_weights=1e-30 * student.cam_weights,
    )
    assert value(name, teacher, other) == pytest.approx(
        value(name, teacher, student), rel=1e-4, abs=1e-5
    )


@every_row
def test_labels_matter_where_the_row_says_so(name: str) -> None:
    teacher, student = made(0), made(1)
    others = [replace(seen, targets=(seen.targets + 1) % 5) for seen in (teacher, student)]
    blind = [replace(seen, cam_weights=None) for seen in (teacher, student)]
    if name.startswith("dkd"):
        assert value(name, *others) != value(name, teacher, student)
    else:  # other rows see them through the class gradient or the weights of the maps
        assert value(name, *others) == value(name, teacher, student)
    if get_distance(name).needs_cam:
        with pytest.raises(UserError, match="cam=True"):
            value(name, *blind)
    else:
        assert value(name, *blind) == value(name, teacher, student)
    assert get_distance(name).needs_labels == (
        name in ("semantic", "semantic_class", "gradcam", "dkd", "dkd_standardised")
    )


@every_row
def test_other_shapes_are_adapted_or_an_error(name: str) -> None:
    row, teacher, student = get_distance(name), made(0), made(1, OTHER)
    if row.same_width:
        with pytest.raises(UserError, match=f"{name} needs"):
            value(name, teacher, student)
    else:
        assert 0 < value(name, teacher, student) < 100
        assert 0 < value(name, student, teacher) < 100
    if row.adapter is not None:
        with pytest.raises(UserError, match=rf"{name} needs .*between\(teacher, student\)"):
            row.distance(teacher, student)
    for kind, shapes in (("width", OTHER_WIDTH), ("grid", OTHER_GRID)):
        if row.adapter is not None and getattr(row.adapter, f"{kind}s"):
            with pytest.raises(UserError, match=f"{name} needs maps of one .*{kind}"):
                row.distance(teacher, made(1, shapes))


@every_row
def test_other_numbers_of_classes_are_an_error_where_they_matter(name: str) -> None:
    teacher, student = made(0), made(1, classes=3)
    if name in ONE_NUMBER_OF_CLASSES:
        with pytest.raises(UserError, match=rf"{name} needs .*teacher \(?5.*student \(?3"):
            value(name, teacher, student)
    else:
        assert value(name, teacher, student) > 0


def flat(tensor: Tensor) -> Tensor:
    return torch.full_like(tensor, 0.1)


@every_row
def test_slopes_are_finite_with_zeros_in_every_place(name: str) -> None:
    for size in (0.0, 1e-30, 1.0, 100.0, 1e6):
        student = leaves(made(1), lambda tensor, size=size: tensor * size)
        with torch.no_grad():
            for tensor in floats(student):
                tensor[1] = 0
                tensor[:, 1:2] = 0
        loss = KNOWLEDGE[name].between(made(0), student)
        loss.backward()
        slopes = [t.grad for t in floats(student) if t.grad is not None]
        assert loss.isfinite() and slopes, size
        assert all(slope.isfinite().all() for slope in slopes), size
        if size == 1:
            assert any(slope.any() for slope in slopes)


@every_row
@pytest.mark.parametrize("change", [torch.zeros_like, flat])
def test_slopes_are_finite_for_a_network_that_gives_one_value(
    name: str, change: Callable[[Tensor], Tensor]
) -> None:
    for constant in (0, 1):
        both = [made(0), made(1)]
        both[constant] = leaves(both[constant], change)
        student = leaves(both[1])
        loss = KNOWLEDGE[name].between(both[0], student)
        loss.backward()
        assert loss.isfinite()
        assert all(t.grad is None or t.grad.isfinite().all() for t in floats(student))


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
