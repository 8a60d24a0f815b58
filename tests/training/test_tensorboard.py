"""Curves for TensorBoard."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tiny_training import SHORT, digits, distill
from toys import LinearHead, seeded

from diswot.errors import UserError
from diswot.training.tensorboard import FOLDER, tensorboard_writer


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder / FOLDER))
    events.Reload()
    names = events.Tags()["scalars"]
    return {name: {e.step: e.value for e in events.Scalars(name)} for name in names}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_value_of_every_epoch(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    made = distill(None, seeded(LinearHead), digits(), SHORT, out=tmp_path, tensorboard=True)
    written = scalars(tmp_path)
    for row in made.history:
        for name in row.keys() - {"epoch"}:
            assert written[name][int(row["epoch"])] == pytest.approx(row[name], rel=1e-5)
    assert "epoch" not in written


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_epochs_after_a_resumed_one_are_hidden(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    for done, value in ((0, 1.0), (1, 2.0)):
        with tensorboard_writer(tmp_path, done) as write:
            for epoch in range(done + 1, 4):
                write({"epoch": epoch, "loss": value})
    assert scalars(tmp_path)["loss"] == {1: 1.0, 2: 2.0, 3: 2.0}


def test_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    wanted = pytest.raises(UserError, match=r"pip install 'diswot\[tensorboard\]'")
    with wanted, tensorboard_writer(tmp_path, 0):
        pass
