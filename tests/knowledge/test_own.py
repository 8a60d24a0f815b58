from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from knowledge.made import made
from torch import Tensor
from torch.nn.functional import kl_div, mse_loss

from diswot.errors import UserError
from diswot.knowledge.logits import kd
from diswot.knowledge.losses import Losses
from diswot.knowledge.registry import KNOWLEDGE, get_distance
from diswot.observation.observe import Observation
from diswot.training.recipe import Recipe, parse_losses

MINE = '''
from torch.nn.functional import mse_loss
from diswot.knowledge.registry import Knowledge

def gap(teacher, student, scale=1.0):
    """Squared gap of the logits.

    And more.
    """
    return scale * mse_loss(student.logits, teacher.logits)

def three(a, b, c): ...
def raising(teacher, student):
    return 1 / 0
ROW = Knowledge(gap, "of outputs alone", "", outputs_alone=True)
SEVEN = 7
'''


def gap(teacher: Observation, student: Observation) -> Tensor:
    return mse_loss(student.logits, teacher.logits)


@pytest.fixture
def mine(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(MINE)
    return str(tmp_path / "mine.py")


def test_a_function_of_a_file_and_in_python(mine: str) -> None:
    pair = made(0), made(1)
    wanted = float((pair[0].logits - pair[1].logits).square().mean())
    for name in (f"{mine}:gap", f"{mine}:ROW", gap):
        assert float(get_distance(name).between(*pair)) == pytest.approx(wanted)
    row = get_distance(f"{mine}:gap")
    assert row.summary == "Squared gap of the logits." and row.defaults == {"scale": 1.0}
    assert row.needs_labels and not row.outputs_alone
    assert get_distance(f"{mine}:ROW").outputs_alone


def test_a_module_of_a_package() -> None:
    pair = made(0), made(1)
    built_in = float(KNOWLEDGE["kd"].between(*pair))
    assert float(get_distance("diswot.knowledge.logits:kd").between(*pair)) == built_in
    assert get_distance(kd) is KNOWLEDGE["kd"]


def test_losses_by_name_weight_and_gradient(mine: str) -> None:
    teacher, student = made(0), made(1)
    student.logits.requires_grad_()
    losses = Losses({f"{mine}:gap": 0.5, gap: 2.0, "kd": 1.0}, teacher, student)
    parts = losses(teacher, student)
    wanted = (teacher.logits - student.logits).square().mean()
    assert list(parts) == [f"{mine}:gap", "gap", "kd"]
    torch.testing.assert_close(parts[f"{mine}:gap"], 0.5 * wanted)
    torch.testing.assert_close(parts["gap"], 2 * wanted)
    (slope,) = torch.autograd.grad(parts["gap"], student.logits)
    torch.testing.assert_close(slope, 4 * (student.logits - teacher.logits) / slope.numel())


def test_the_temperature_of_a_recipe_is_passed_on() -> None:
    def softened(teacher: Observation, student: Observation, temperature: float = 1.0) -> Tensor:
        logs = (each.logits.div(temperature).log_softmax(1) for each in (student, teacher))
        return kl_div(*logs, reduction="batchmean", log_target=True) * temperature**2

    pair = made(0), made(1)
    parts = Losses({softened: 1.0, "kd": 1.0}, *pair, temperature=3.0)(*pair)
    torch.testing.assert_close(parts["softened"], parts["kd"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("three", r"mine.py:three is no knowledge distance: .* and takes 3 arguments"),
        ("gab", r"unknown function in .*mine.py 'gab'; did you mean gap\?"),
        ("SEVEN", r"unknown function in .*mine.py 'SEVEN'"),
    ],
)
def test_what_is_no_distance(mine: str, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        get_distance(f"{mine}:{name}")


def test_a_name_that_is_taken() -> None:
    def kd(teacher: Any, student: Any) -> Any: ...

    with pytest.raises(UserError, match="kd is a built-in distance; give your function another"):
        get_distance(kd)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda t, s: 1.0, r"<lambda> must return a scalar tensor, not a float"),
        (lambda t, s: s.logits, r"not a Tensor of shape \(4, 5\)"),
        (lambda t, s: s.logits.detach().sum(), r"<lambda> has no gradient"),
    ],
)
def test_what_a_distance_must_return(value: Any, message: str) -> None:
    teacher, student = made(0), made(1)
    student.logits.requires_grad_()
    with pytest.raises(UserError, match=message):
        get_distance(value).between(teacher, student)


def test_a_function_that_fails_is_named_with_its_line(mine: str) -> None:
    with pytest.raises(UserError, match=r"mine.py:raising fails: ZeroDivisionError: .*line 14"):
        get_distance(f"{mine}:raising").between(made(0), made(1))


def test_a_text_of_losses(mine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own, module = f"{tmp_path.resolve()}/mine.py:gap", "diswot.knowledge.logits:kd"
    assert parse_losses("mine.py:gap") == {own: 1.0}
    assert parse_losses(f"kd:0.9, mine.py:gap:0.5 ,{module}:2") == {"kd": 0.9, own: 0.5, module: 2}
    assert parse_losses(f"./mine.py:gap: 1e-2,{module}") == {own: 0.01, module: 1.0}
    with pytest.raises(UserError, match="is weighted twice"):
        parse_losses("mine.py:gap:2,./mine.py:gap")
    with pytest.raises(UserError, match=r"'much' is no weight for .*mine.py:gap"):
        parse_losses("mine.py:gap:much")
    with pytest.raises(UserError, match=r"no weight of .*mine.py:gap is published"):
        parse_losses("mine.py:gap:published")


def test_a_recipe_is_kept_as_plain_values(mine: str) -> None:
    recipe = Recipe(losses={gap: 0.5, f"{mine}:gap": 2.0})
    assert recipe.as_dict()["losses"] == {"gap": 0.5, f"{mine}:gap": 2.0}
    with pytest.raises(UserError, match="cache needs losses of outputs alone, and gap sees more"):
        Recipe(losses={gap: 1.0}, cache=True, crop=0, flip=False)
    Recipe(losses={f"{mine}:ROW": 1.0}, cache=True, crop=0, flip=False)
