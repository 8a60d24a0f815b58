"""Trained weights from files of all kinds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from diswot.errors import UserError
from diswot.models.registry import create_teacher
from diswot.models.weights import load_weights
from diswot.utils import state_dicts


def linear() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def same(one: nn.Module, other: nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


class TestWeights:
    @pytest.mark.parametrize("kind", ["safetensors", "pt", "checkpoint", "parallel", "old"])
    def test_load(self, tmp_path: Path, kind: str) -> None:
        model, other = linear(), linear()
        state = model.state_dict()
        place = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pth")
        if kind == "safetensors":
            state_dicts.save_weights(model, place)
        elif kind == "checkpoint":
            torch.save({"state_dict": state, "epoch": 2}, place)
        elif kind == "parallel":
            torch.save({f"module.{name}": value for name, value in state.items()}, place)
        else:
            torch.save(state, place, _use_new_zipfile_serialization=kind != "old")
        load_weights(other, place)
        assert same(model, other)

    def test_a_network_with_a_part_called_module(self, tmp_path: Path) -> None:
        class Wrapped(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.module = nn.Linear(2, 2)

        model, other = Wrapped(), Wrapped()
        torch.save(model.state_dict(), tmp_path / "w.pt")
        load_weights(other, str(tmp_path / "w.pt"))
        assert same(model, other)

    def test_wrong_shapes_leave_the_network_alone(self, tmp_path: Path) -> None:
        state = {**linear().state_dict(), "1.weight": torch.ones(5), "1.bias": torch.ones(2)}
        torch.save(state, tmp_path / "w.pt")
        model, before = linear(), linear()
        before.load_state_dict(model.state_dict())
        with pytest.raises(UserError) as caught:
            load_weights(model, tmp_path / "w.pt")
        expected = "1.bias has the shape (2,), not (4,), 1.weight has the shape (5,), not (4,)"
        assert str(caught.value) == f"{tmp_path / 'w.pt'} does not fit the network: {expected}"
        assert same(model, before)

    @pytest.mark.parametrize(
        ("trained", "named", "message"),
        [
            ("resnet32", "resnet20", "layer1.3.bn1.running_mean too, and 69 more differences"),
            ("resnet20", "resnet32", "it lacks layer1.3.bn1.running_var, and 57 more differences"),
        ],
    )
    def test_another_network(self, tmp_path: Path, trained: str, named: str, message: str) -> None:
        state_dicts.save_weights(create_teacher(trained, 10), tmp_path / "w.safetensors")
        with pytest.raises(UserError) as caught:
            load_weights(create_teacher(named, 10), tmp_path / "w.safetensors")
        assert message in str(caught.value)

    def test_another_number_of_classes(self, tmp_path: Path) -> None:
        state_dicts.save_weights(create_teacher("resnet20", 10), tmp_path / "w.safetensors")
        with pytest.raises(UserError, match=r"fc.bias has the shape \(10,\), not \(100,\)"):
            load_weights(create_teacher("resnet20", 100), tmp_path / "w.safetensors")

    @pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
    def test_absent(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(UserError, match=f"no such weights: .*{name}"):
            load_weights(linear(), tmp_path / name)
        with pytest.raises(UserError, match="no such weights"):
            load_weights(linear(), tmp_path)

    @pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
    @pytest.mark.parametrize("content", [b"", b"garbage", b"\xff" * 5000, b"PK\x03\x04"])
    def test_garbage(self, tmp_path: Path, name: str, content: bytes) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError) as caught:
            load_weights(linear(), tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)

    def test_a_whole_pickled_network_is_refused_and_not_run(self, tmp_path: Path) -> None:
        class Bomb:
            def __reduce__(self) -> tuple[object, tuple[str]]:
                return os.mkdir, (str(tmp_path / "trap"),)

        torch.save({"state_dict": {"a": Bomb()}}, tmp_path / "w.pt")
        with pytest.raises(UserError, match="is no file of tensors"):
            load_weights(linear(), tmp_path / "w.pt")
        torch.save(linear(), tmp_path / "w.pt")
        with pytest.raises(UserError, match="is no file of tensors"):
            load_weights(linear(), tmp_path / "w.pt")
        assert not (tmp_path / "trap").exists()

    def test_safetensors_of_others(self, tmp_path: Path) -> None:
        save_file({"a": torch.zeros(1)}, tmp_path / "w.safetensors")
        with pytest.raises(UserError, match="it has a too"):
            load_weights(linear(), tmp_path / "w.safetensors")


def state(seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return linear().state_dict()


def under(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: value for name, value in state.items()}


WANTED, OTHER = state(1), state(2)


@pytest.mark.parametrize(
    "held",
    [
        {"n_averaged": torch.tensor(3), **under("module.", WANTED)},
        {"state_dict": {**under("model.", WANTED), "criterion.weight": torch.ones(5)}, "epoch": 3},
        {"state_dict": {**under("net.", WANTED), "loss.0.weight": torch.ones(9, 9)}},
        {"state_dict": OTHER, "state_dict_ema": WANTED},
        {
            "model": OTHER,
            "model_ema": {"n_averaged": 3 * torch.ones(()), **under("module.", WANTED)},
        },
        {"state_dict": under("module.", OTHER), "state_dict_ema": under("module.", WANTED)},
        {"model": WANTED, "ema": {"decay": 0.99}},
        under("module._orig_mod.", WANTED),
    ],
)
def test_checkpoints_as_people_have_them(held: dict[str, object], tmp_path: Path) -> None:
    torch.save(held, tmp_path / "w.pth")
    model = linear()

    load_weights(model, tmp_path / "w.pth")

    assert all(torch.equal(value, WANTED[name]) for name, value in model.state_dict().items())


def test_that_an_average_is_taken_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save({"state_dict": OTHER, "state_dict_ema": WANTED}, tmp_path / "w.pth")
    load_weights(linear(), tmp_path / "w.pth")

    (said,) = caplog.messages
    assert said.endswith("of state_dict and state_dict_ema the average is taken, state_dict_ema")


@pytest.mark.parametrize(
    ("weight", "said"),
    [
        (WANTED["0.weight"].to_sparse(), "0.weight is sparse or quantised, not plain numbers"),
        (torch.nan * WANTED["0.weight"], "0.weight holds NaN"),
    ],
)
def test_weights_that_no_network_takes(weight: torch.Tensor, said: str, tmp_path: Path) -> None:
    torch.save({**WANTED, "0.weight": weight}, tmp_path / "w.pth")
    model = linear()

    with pytest.raises(UserError, match=f"w.pth does not fit the network: {said}"):
        load_weights(model, tmp_path / "w.pth")

    assert model.state_dict()["0.weight"].isfinite().all()


def test_two_networks_in_one_file_are_refused(tmp_path: Path) -> None:
    torch.save({**under("student.", WANTED), **under("teacher.", OTHER)}, tmp_path / "w.pth")

    with pytest.raises(UserError, match=r"several networks that fit, student\., teacher\."):
        load_weights(linear(), tmp_path / "w.pth")
