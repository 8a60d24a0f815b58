"""Several processes give what one gives."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_training import curve, digits, distill
from toys import LinearHead, seeded

from diswot.errors import UserError
from diswot.training.distributed import Processes
from diswot.training.recipe import Recipe
from diswot.utils.files import load_weights

RECIPE = Recipe(
    epochs=2, batch_size=32, lr=0.05, crop=1, flip=True, cutout=2, precision="fp32", ema=0.9,
    losses={"kd": 1.0, "semantic": 1.0, "relation": 100.0, "fitnet": 0.1}, accumulate=2,
)  # fmt: skip

CODE = f"""
import sys
sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1])]!r}
import torch
torch.set_num_threads(1)
from test_distributed import *
student = seeded(LinearHead)
distill(student, seeded(LinearHead, 7), digits(96, 31), RECIPE, out=sys.argv[1])
assert "forward" not in vars(student.block1[1])
"""


def free_port() -> int:
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        return int(port.getsockname()[1])


def start(command: list[str], count: int) -> None:
    """Run a command in so many processes that know of each other, as `accelerate launch` does."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(count)}
    runs = []
    for rank in range(count):
        mine = {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(count)}
        told = {**os.environ, **place, **mine, "ACCELERATE_USE_CPU": "true"}
        runs.append(subprocess.Popen(command, env=told, stderr=subprocess.PIPE, text=True))
    for run in runs:
        _, errors = run.communicate(timeout=280)
        assert run.returncode == 0, errors


def test_two_processes_give_the_curve_of_one(tmp_path: Path) -> None:
    """Batch statistics, relations, adapters, averages and augmentation are of whole batches."""
    start([sys.executable, "-c", CODE, str(tmp_path)], 2)
    one = distill(seeded(LinearHead), seeded(LinearHead, 7), digits(96, 31), RECIPE)
    lines = (tmp_path / "history.jsonl").read_text().splitlines()
    for row, line in zip(curve(one), lines, strict=True):
        other = json.loads(line)
        for name, value in row.items():
            assert other[name] == pytest.approx(value, rel=2e-4), name
    weights = load_weights(tmp_path / "student.safetensors")
    for name, value in one.student.state_dict().items():
        assert torch.allclose(weights[name], value.cpu(), rtol=1e-3, atol=1e-4), name


@pytest.mark.slow
def test_the_command_line_in_two_processes(tmp_path: Path) -> None:
    line = "distill --student resnet20 --teacher none --data digits --image-size 8 --epochs 1"
    line += " --batch-size 128 --lr 0.001 --precision fp32 --quiet --json --out"
    command = [sys.executable, "-m", "diswot", *line.split()]
    start([*command, str(tmp_path / "two")], 2)
    subprocess.run([*command, str(tmp_path / "one")], check=True)
    two, one = (
        json.loads((tmp_path / name / "history.jsonl").read_text()) for name in ("two", "one")
    )
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
    assert (tmp_path / "two" / "trained.json").is_file()


def test_alone_nothing_is_changed() -> None:
    processes = Processes()
    assert (processes.count, processes.rank, processes.main) == (1, 0, True)
    value = torch.rand(3, requires_grad=True)
    assert processes.gather(value) is value and processes.sum(value) is value
    assert processes.share(6) == slice(0, 6)


def test_batches_that_cannot_be_cut_evenly() -> None:
    recipe = Recipe(epochs=1, batch_size=32, accumulate=3, losses={})
    with pytest.raises(UserError, match="a batch of 32 images cannot be cut evenly into 3 parts"):
        distill(seeded(LinearHead), None, digits(), recipe)
    recipe = Recipe(epochs=1, batch_size=64, accumulate=32, losses={})
    with pytest.raises(UserError, match="48 images are too few for a batch in 32 parts"):
        distill(seeded(LinearHead), None, digits(48), recipe)
