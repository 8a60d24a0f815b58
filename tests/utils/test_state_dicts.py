"""Weights in files of safetensors and torch, own and foreign."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

from diswot.errors import UserError
from diswot.utils import state_dicts


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def only(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestTensors:
    def test_plain_values_come_back(self, tmp_path: Path) -> None:
        state = {"a": torch.arange(3), "rows": [{"epoch": 1, "loss": 0.5}], "none": None}
        torch.save(state, tmp_path / "c.pt")
        back = state_dicts.load_tensors(tmp_path / "c.pt")
        assert torch.equal(back["a"], state["a"]) and back["rows"] == state["rows"]

    @pytest.mark.parametrize("legacy", [False, True])
    def test_a_pickled_object_is_refused_and_not_run(self, tmp_path: Path, legacy: bool) -> None:
        place, trap = tmp_path / "c.pt", tmp_path / "trap"
        torch.save({"student": Bomb(trap)}, place, _use_new_zipfile_serialization=not legacy)
        with pytest.raises(UserError) as caught:
            state_dicts.load_tensors(place)
        assert not trap.exists() and "\n" not in str(caught.value)
        place.write_bytes(pickle.dumps(Bomb(trap)))
        with pytest.raises(UserError):
            state_dicts.load_tensors(place)
        assert not trap.exists()

    def test_no_dict(self, tmp_path: Path) -> None:
        torch.save([1, 2], tmp_path / "c.pt")
        with pytest.raises(UserError, match="holds a list, not a dict"):
            state_dicts.load_tensors(tmp_path / "c.pt")

    def test_absent_and_folder(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="No such file"):
            state_dicts.load_tensors(tmp_path / "c.pt")
        with pytest.raises(UserError, match=r"cannot read|is no file"):
            state_dicts.load_tensors(tmp_path)

    @settings(
        suppress_health_check=[HealthCheck.function_scoped_fixture],
        derandomize=True,
        deadline=None,
        database=None,
    )
    @given(start=st.integers(0, 4), noise=st.binary(max_size=200), cut=st.floats(0, 1))
    def test_garbage_is_one_line(
        self, tmp_path: Path, start: int, noise: bytes, cut: float
    ) -> None:
        place = tmp_path / "c.pt"
        torch.save({"a": torch.zeros(3)}, place)
        whole = place.read_bytes()
        half = whole[: int(cut * (len(whole) - 1))]
        place.write_bytes(
            [noise, half, half + noise, b"\x80\x02" + noise, b"PK\x03\x04" + noise][start]
        )
        try:
            assert isinstance(state_dicts.load_tensors(place), dict)  # the noise may mend the file
        except UserError as error:
            assert str(place) in str(error) and "\n" not in str(error)


class Tied(nn.Module):
    """Two layers, one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
        self.two.weight = self.one.weight


class TestWeights:
    def test_come_back(self, tmp_path: Path) -> None:
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        model.to(memory_format=torch.channels_last)
        state_dicts.save_weights(model, tmp_path / "w.safetensors")
        back = load_file(tmp_path / "w.safetensors")
        for name, value in model.state_dict().items():
            assert torch.equal(back[name], value)

    def test_shared_weights_are_written(self, tmp_path: Path) -> None:
        state_dicts.save_weights(Tied(), tmp_path / "w.safetensors")
        other = Tied()
        other.load_state_dict(load_file(tmp_path / "w.safetensors"))
        assert other.two.weight is other.one.weight

    @pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "student"])
    def test_inside_a_checkpoint(self, tmp_path: Path, key: str) -> None:
        state = nn.Linear(2, 3).state_dict()
        torch.save({"epoch": 3, key: state}, tmp_path / "c.pt")
        assert state_dicts.read_weights(tmp_path / "c.pt").keys() == state.keys()

    def test_arrays_and_torchscript_are_named(
        self, tmp_path: Path, recwarn: pytest.WarningsRecorder
    ) -> None:
        torch.save({"a": np.zeros(3)}, tmp_path / "c.pt")
        with pytest.raises(UserError, match="besides tensors it has arrays of NumPy, or paths"):
            state_dicts.read_weights(tmp_path / "c.pt")
        with pytest.warns(FutureWarning, match="torch.jit.script"):
            torch.jit.script(nn.Linear(2, 3)).save(str(tmp_path / "s.pt"))
        recwarn.clear()
        with pytest.raises(UserError, match=r"it is TorchScript; save model.state_dict\(\)$"):
            state_dicts.read_weights(tmp_path / "s.pt")
        assert not recwarn

    @pytest.mark.parametrize("content", [{}, {"epoch": 3}, {"model": {"a": 1}}])
    def test_no_state_dict(self, tmp_path: Path, content: dict[str, object]) -> None:
        torch.save(content, tmp_path / "c.pt")
        with pytest.raises(UserError, match="holds no state dict"):
            state_dicts.read_weights(tmp_path / "c.pt")
