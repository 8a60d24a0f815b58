"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import pickle
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from full_disk import full_disk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

from diswot.errors import UserError
from diswot.utils import files


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def only(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestWrite:
    def test_makes_folders_and_leaves_nothing_else(self, tmp_path: Path) -> None:
        place = tmp_path / "a" / "b" / "c.json"
        files.write_json(place, {"x": [1, 2.5, None]})
        assert files.read_json(place) == {"x": [1, 2.5, None]}
        assert only(place.parent) == ["c.json"]

    @pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("bad")])
    def test_a_failing_save_leaves_the_old_file(self, tmp_path: Path, error: Exception) -> None:
        place = tmp_path / "x.json"
        files.write_json(place, {"old": 1})

        def fail(temporary: str) -> None:
            Path(temporary).write_text('{"ne')
            raise error

        with pytest.raises(UserError, match=r"cannot write .*x.json: (No space left|bad)"):
            files.write(place, fail)
        assert files.read_json(place) == {"old": 1} and only(tmp_path) == ["x.json"]

    def test_a_stop_leaves_the_old_file(self, tmp_path: Path) -> None:
        place = tmp_path / "x.json"
        files.write_json(place, {"old": 1})

        def stop(temporary: str) -> None:
            Path(temporary).write_text('{"ne')
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            files.write(place, stop)
        assert files.read_json(place) == {"old": 1} and only(tmp_path) == ["x.json"]

    @pytest.mark.parametrize("kind", ["json", "tensors", "weights"])
    def test_a_file_in_the_way_of_the_folder(self, tmp_path: Path, kind: str) -> None:
        (tmp_path / "file").write_text("mine")
        place = tmp_path / "file" / "x"
        with pytest.raises(UserError) as caught:
            if kind == "json":
                files.write_json(place, {})
            elif kind == "tensors":
                files.write(place, lambda path: torch.save({}, path))
            else:
                files.save_weights(nn.Linear(2, 2), place)
        assert str(caught.value).startswith(f"cannot write {place}: ")
        assert "\n" not in str(caught.value) and (tmp_path / "file").read_text() == "mine"

    @pytest.mark.parametrize("kind", ["json", "tensors", "weights"])
    def test_a_full_disk(self, tmp_path: Path, kind: str) -> None:
        place, large = tmp_path / "x", nn.Linear(500, 500)
        save: Callable[[nn.Linear], None] = {
            "json": lambda model: files.write_json(place, model.weight.tolist()),
            "tensors": lambda model: files.write(
                place, lambda path: torch.save(model.state_dict(), path)
            ),
            "weights": lambda model: files.save_weights(model, place),
        }[kind]
        save(nn.Linear(1, 1))
        before = place.read_bytes()
        with pytest.raises(UserError) as caught, full_disk(4096):
            save(large)
        assert str(caught.value).startswith(f"cannot write {place}: ")
        assert "\n" not in str(caught.value)
        assert place.read_bytes() == before and only(tmp_path) == ["x"]

    def test_rights_are_those_of_any_new_file(self, tmp_path: Path) -> None:
        (tmp_path / "plain").write_text("")
        files.write_json(tmp_path / "x.json", {})
        modes = [stat.S_IMODE((tmp_path / n).stat().st_mode) for n in ("plain", "x.json")]
        assert modes[0] == modes[1]


class TestReadJson:
    @pytest.mark.parametrize("text", ["", "{", '{"a": 1}}', "nope", "\x00"])
    def test_damaged(self, tmp_path: Path, text: str) -> None:
        place = tmp_path / "run.json"
        place.write_text(text)
        with pytest.raises(UserError, match=r"cannot read .*run.json: "):
            files.read_json(place)

    @pytest.mark.parametrize("text", ["[1]", "3", "null", '"x"'])
    def test_no_object(self, tmp_path: Path, text: str) -> None:
        place = tmp_path / "run.json"
        place.write_text(text)
        with pytest.raises(UserError, match="is not what diswot writes"):
            files.read_json(place)

    def test_other_bytes(self, tmp_path: Path) -> None:
        (tmp_path / "x").write_bytes(b"\xff\xfe{}")
        with pytest.raises(UserError, match="cannot read"):
            files.read_json(tmp_path / "x")

    def test_absent(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"cannot read .*x: No such file or directory$"):
            files.read_json(tmp_path / "x")
        with pytest.raises(UserError, match=r"cannot read .*: Is a directory$"):
            files.read_json(tmp_path)


class TestTensors:
    def test_plain_values_come_back(self, tmp_path: Path) -> None:
        state = {"a": torch.arange(3), "rows": [{"epoch": 1, "loss": 0.5}], "none": None}
        torch.save(state, tmp_path / "c.pt")
        back = files.load_tensors(tmp_path / "c.pt")
        assert torch.equal(back["a"], state["a"]) and back["rows"] == state["rows"]

    @pytest.mark.parametrize("legacy", [False, True])
    def test_a_pickled_object_is_refused_and_not_run(self, tmp_path: Path, legacy: bool) -> None:
        place, trap = tmp_path / "c.pt", tmp_path / "trap"
        torch.save({"student": Bomb(trap)}, place, _use_new_zipfile_serialization=not legacy)
        with pytest.raises(UserError) as caught:
            files.load_tensors(place)
        assert not trap.exists() and "\n" not in str(caught.value)
        place.write_bytes(pickle.dumps(Bomb(trap)))
        with pytest.raises(UserError):
            files.load_tensors(place)
        assert not trap.exists()

    def test_no_dict(self, tmp_path: Path) -> None:
        torch.save([1, 2], tmp_path / "c.pt")
        with pytest.raises(UserError, match="holds a list, not a dict"):
            files.load_tensors(tmp_path / "c.pt")

    def test_absent_and_folder(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="No such file"):
            files.load_tensors(tmp_path / "c.pt")
        with pytest.raises(UserError, match=r"cannot read|is no file"):
            files.load_tensors(tmp_path)

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
            assert isinstance(files.load_tensors(place), dict)  # the noise may mend the file
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
        files.save_weights(model, tmp_path / "w.safetensors")
        back = load_file(tmp_path / "w.safetensors")
        for name, value in model.state_dict().items():
            assert torch.equal(back[name], value)

    def test_shared_weights_are_written(self, tmp_path: Path) -> None:
        files.save_weights(Tied(), tmp_path / "w.safetensors")
        other = Tied()
        other.load_state_dict(load_file(tmp_path / "w.safetensors"))
        assert other.two.weight is other.one.weight

    @pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "student"])
    def test_inside_a_checkpoint(self, tmp_path: Path, key: str) -> None:
        state = nn.Linear(2, 3).state_dict()
        torch.save({"epoch": 3, key: state}, tmp_path / "c.pt")
        assert files.load_weights(tmp_path / "c.pt").keys() == state.keys()

    def test_arrays_and_torchscript_are_named(
        self, tmp_path: Path, recwarn: pytest.WarningsRecorder
    ) -> None:
        torch.save({"a": np.zeros(3)}, tmp_path / "c.pt")
        with pytest.raises(UserError, match="besides tensors it has arrays of NumPy, or paths"):
            files.load_weights(tmp_path / "c.pt")
        with pytest.warns(FutureWarning, match="torch.jit.script"):
            torch.jit.script(nn.Linear(2, 3)).save(str(tmp_path / "s.pt"))
        recwarn.clear()
        with pytest.raises(UserError, match=r"it is TorchScript; save model.state_dict\(\)$"):
            files.load_weights(tmp_path / "s.pt")
        assert not recwarn

    @pytest.mark.parametrize("content", [{}, {"epoch": 3}, {"model": {"a": 1}}])
    def test_no_state_dict(self, tmp_path: Path, content: dict[str, object]) -> None:
        torch.save(content, tmp_path / "c.pt")
        with pytest.raises(UserError, match="holds no state dict"):
            files.load_weights(tmp_path / "c.pt")
