from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import toys
from torch import nn
from torch.nn.functional import mse_loss

from diswot.data.dataset import Batch
from diswot.errors import UserError
from diswot.knowledge.logits import kd
from diswot.proxies.candidate import Candidate
from diswot.proxies.registry import PROXIES, get_proxies, get_proxy
from diswot.proxies.scorer import score, scorer

MINE = '''
from diswot.proxies.registry import Proxy

def weights(candidate):
    """Number of weights."""
    return sum(each.numel() for each in candidate.student.parameters())

def gap(teacher, student):
    return (student.logits - teacher.logits).square().mean()

def nothing(candidate): ...
def none(): ...
def raising(candidate):
    return 1 / 0
ROW = Proxy(weights, "weights without a pass", "")
'''


def weights(candidate: Candidate) -> int:
    return sum(each.numel() for each in candidate.student.parameters())


def taught(candidate: Candidate) -> float:
    return 0.0 if candidate.teacher is None else float(candidate.teacher.logits.abs().mean())


def gap(teacher: Any, student: Any) -> Any:
    return mse_loss(student.logits, teacher.logits)


@pytest.fixture
def mine(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(MINE)
    return str(tmp_path / "mine.py")


def pair() -> tuple[nn.Module, nn.Module]:
    return toys.seeded(toys.LinearHead, 0), toys.seeded(toys.LinearHead, 1)


def batch() -> Batch:
    return Batch(*toys.batch())


def logits(model: nn.Module) -> torch.Tensor:
    """In training mode, as scores are computed."""
    with torch.no_grad():
        found: torch.Tensor = model.train()(batch().images)
    return found


def test_scores_by_text_and_by_function(mine: str) -> None:
    teacher, student = pair()
    count = sum(each.numel() for each in student.parameters())
    distance = float((logits(teacher) - logits(student)).square().mean())
    names: list[Any] = [f"{mine}:weights", f"{mine}:gap", f"{mine}:ROW", weights, gap, "params"]
    found = score(teacher, student, batch(), names)
    assert list(found) == [*names[:3], "weights", "gap", "params"]
    assert {found[name] for name in found if "gap" not in name} == {count}
    assert found["gap"] == found[f"{mine}:gap"] == pytest.approx(-distance, rel=1e-5)
    assert score(teacher, student, batch(), weights) == {"weights": count}


def test_a_score_sees_a_teacher_that_is_there_and_needs_none() -> None:
    teacher, student = pair()
    seen = float(logits(teacher).abs().mean())
    assert score(teacher, student, batch(), taught) == {"taught": pytest.approx(seen, rel=1e-5)}
    assert score(None, student, batch(), taught) == {"taught": 0.0}
    fixed = scorer(None, [batch()], [taught])
    assert fixed.score([student], [taught]) == {"taught": [0.0]}
    with pytest.raises(UserError, match="gap needs a teacher"):
        score(None, student, batch(), gap)


def test_facts_of_rows(mine: str) -> None:
    assert get_proxy(f"{mine}:weights").summary == "Number of weights."
    assert get_proxy(f"{mine}:weights").init == "default"
    assert not get_proxy(f"{mine}:ROW").needs_forward
    assert get_proxy(f"{mine}:gap").compares_observations
    assert get_proxy("diswot.proxies.size:params").score(_candidate()) == 4
    assert get_proxy(kd) is PROXIES["kd"]
    assert get_proxy(PROXIES["params"].score) is PROXIES["params"]


def _candidate() -> Candidate:
    return Candidate(nn.Linear(3, 1), None, batch())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none", r"mine.py:none is no score: it must take a candidate, .* and takes 0 arguments"),
        ("wights", r"unknown function in .*mine.py 'wights'; did you mean weights\?"),
    ],
)
def test_what_is_no_score(mine: str, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        get_proxy(f"{mine}:{name}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", r"mine.py:nothing must return a number, not a NoneType"),
        ("raising", r"mine.py:raising fails: ZeroDivisionError: division by zero \(line 14\)"),
    ],
)
def test_a_score_that_fails(mine: str, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        score(None, pair()[1], batch(), f"{mine}:{name}")


def test_names_that_are_taken() -> None:
    def params(candidate: Any) -> Any: ...

    with pytest.raises(UserError, match="params is a built-in score; give your function another"):
        get_proxy(params)
    with pytest.raises(UserError, match="two scores have one name"):
        get_proxies([lambda c: 1.0, lambda c: 2.0])
