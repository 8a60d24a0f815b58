"""Files that are there whole or not at all."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from full_disk import full_disk
from torch import nn

from diswot.errors import UserError
from diswot.utils import files, state_dicts


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
                state_dicts.save_weights(nn.Linear(2, 2), place)
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
            "weights": lambda model: state_dicts.save_weights(model, place),
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
