"""The state of a training on disk."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from toys import LinearHead, seeded

from diswot.errors import UserError
from diswot.training import checkpoint
from diswot.training.checkpoint import CHECKPOINT, HISTORY

FACTS: dict[str, Any] = {"epochs": 3, "losses": {"kd": 0.5}, "data": "digits", "taught": False}


def trained(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A network after a step with momentum."""
    model = seeded(LinearHead, seed)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9)
    generator = torch.Generator().manual_seed(seed)
    model(torch.randn(4, 3, 8, 8, generator=generator)).square().mean().backward()
    optimizer.step()
    return model, optimizer


def parts(seed: int) -> dict[str, Any]:
    model, optimizer = trained(seed)
    return {"student": model, "optimizer": optimizer}


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def test_everything_comes_back(tmp_path: Path) -> None:
    model, optimizer = trained(0)
    rows = [{"epoch": 1, "loss": 0.1 + 0.2}, {"epoch": 2, "loss": 1e-30}]
    checkpoint.save(tmp_path / "run", FACTS, {"student": model, "optimizer": optimizer}, rows)
    other, others = trained(1)
    assert not same(model.state_dict(), other.state_dict())
    given = {"student": other, "optimizer": others}
    assert checkpoint.load(tmp_path / "run", dict(FACTS), given) == (rows, {})
    assert same(model.state_dict(), other.state_dict())
    assert same(optimizer.state_dict(), others.state_dict())
    lines = (tmp_path / "run" / HISTORY).read_text().splitlines()
    assert [json.loads(line) for line in lines] == rows


def test_facts_of_numpy_are_the_same_facts(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, {"seed": np.int64(3), "lr": np.float32(0.5)}, parts(0), [])
    for facts in ({"seed": 3, "lr": 0.5}, {"seed": np.int32(3), "lr": np.float64(0.5)}):
        assert checkpoint.load(tmp_path, facts, parts(1)) == ([], {})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("epochs", 4, "has epochs = 3, not 4"),
        ("losses", {"kd": 1.0}, "has kd = 0.5, not 1.0"),
        ("data", "cifar10", "has data = 'digits', not 'cifar10'"),
        ("new", 1, "has new = None, not 1"),
    ],
)
def test_other_facts(tmp_path: Path, name: str, value: object, message: str) -> None:
    checkpoint.save(tmp_path, FACTS, parts(0), [])
    other = parts(1)
    before = {key: tensor.clone() for key, tensor in other["student"].state_dict().items()}
    with pytest.raises(UserError) as caught:
        checkpoint.load(tmp_path, {**FACTS, name: value}, other)
    assert message in str(caught.value) and same(before, dict(other["student"].state_dict()))


def test_another_student(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, FACTS, parts(0), [])
    model = nn.Linear(2, 2)
    other = {"student": model, "optimizer": torch.optim.SGD(model.parameters(), 0.1)}
    with pytest.raises(UserError, match="has another student"):
        checkpoint.load(tmp_path, FACTS, other)


def test_weights_of_another_optimizer(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, FACTS, parts(0), [])
    model = seeded(LinearHead)
    other = {"student": model, "optimizer": torch.optim.SGD([model.fc.weight], 0.1)}
    with pytest.raises(UserError, match="has another optimizer"):
        checkpoint.load(tmp_path, FACTS, other)


def test_averaged_weights_of_version_0_1(tmp_path: Path) -> None:
    """That version stored them with a prefix, beside the number of updates."""
    model, other = seeded(LinearHead), seeded(LinearHead, 1)
    wrapped = nn.ModuleDict({"model": model})
    wrapped.register_buffer("steps", torch.tensor(7))
    checkpoint.save(tmp_path, FACTS, {"average": wrapped}, [])
    checkpoint.load(tmp_path, FACTS, {"average": other})
    assert same(dict(other.state_dict()), dict(model.state_dict()))


@pytest.mark.parametrize("content", [{}, {"student": {}}, {"facts": {}, "history": []}])
def test_of_something_else(tmp_path: Path, content: dict[str, object]) -> None:
    torch.save(content, tmp_path / CHECKPOINT)
    with pytest.raises(UserError, match="is not what diswot writes"):
        checkpoint.load(tmp_path, FACTS, parts(0))


def test_a_fact_that_an_older_version_did_not_know(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, FACTS, parts(0), [{"epoch": 1}])
    newer = {**FACTS, "ema": 0.0}
    assert checkpoint.load(tmp_path, newer, parts(1), {"ema": 0.0}) == ([{"epoch": 1}], {})
    with pytest.raises(UserError, match=r"has ema = 0\.0, not 0\.5"):
        checkpoint.load(tmp_path, {**FACTS, "ema": 0.5}, parts(1), {"ema": 0.0})
    with pytest.raises(UserError, match="has epochs = 3, not 4"):
        checkpoint.load(tmp_path, {**FACTS, "epochs": 4}, parts(1), {"epochs": 4})


@pytest.mark.parametrize("left", [0, 1, 0.5, 0.99])
def test_a_torn_one_is_told_and_left_as_it_is(tmp_path: Path, left: float) -> None:
    checkpoint.save(tmp_path, FACTS, parts(0), [{"epoch": 1}])
    path = tmp_path / CHECKPOINT
    torn = path.read_bytes()[: int(left * path.stat().st_size) if left < 1 else int(left)]
    path.write_bytes(torn)
    with pytest.raises(UserError, match=r"checkpoint.pt is no file of tensors") as caught:
        checkpoint.load(tmp_path, FACTS, parts(1))
    assert "\n" not in str(caught.value) and path.read_bytes() == torn


@pytest.mark.parametrize("part", ["facts", "student", "optimizer", "history"])
def test_a_pickled_object_is_refused_and_not_run(tmp_path: Path, part: str) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "trap"),)

    checkpoint.save(tmp_path, FACTS, parts(0), [])
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    torch.save({**state, part: {"x": Bomb()}}, tmp_path / CHECKPOINT)
    with pytest.raises(UserError) as caught:
        checkpoint.load(tmp_path, FACTS, parts(0))
    assert not (tmp_path / "trap").exists() and "\n" not in str(caught.value)


def test_a_failing_save_leaves_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(tmp_path, FACTS, parts(0), [{"epoch": 1}])

    def full(state: object, path: str) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(UserError, match=r"cannot write .*checkpoint.pt: No space left"):
            checkpoint.save(tmp_path, FACTS, parts(0), [{"epoch": 1}, {"epoch": 2}])
    assert checkpoint.load(tmp_path, FACTS, parts(1)) == ([{"epoch": 1}], {})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([CHECKPOINT, HISTORY])


def test_checksum_sees_every_weight_and_buffer() -> None:
    model = seeded(LinearHead)
    model.register_buffer("empty", torch.zeros(0))
    model.register_buffer("scalar", torch.zeros((), dtype=torch.bfloat16))
    before = checkpoint.checksum(model)
    assert checkpoint.checksum(model.to(memory_format=torch.channels_last)) == before
    for value in model.state_dict().values():
        if value.numel():
            kept = value.clone()
            value += 1
            assert checkpoint.checksum(model) != before
            value.copy_(kept)
    assert checkpoint.checksum(model) == before
