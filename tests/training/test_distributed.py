"""Several processes give what one gives."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_training import curve, distill, made
from torch import Tensor, nn
from toys import LinearHead, seeded

from diswot.training.distill import Distilled
from diswot.training.distributed import Processes, _sync_batch_norm, has_unused_weights
from diswot.training.recipe import Recipe
from diswot.utils.state_dicts import read_weights

RECIPE = Recipe(
    epochs=2, batch_size=32, lr=0.05, crop=1, flip=True, cutout=2, precision="fp32", ema=0.9,
    losses={"kd": 1.0, "semantic": 1.0, "relation": 100.0, "fitnet": 0.1}, accumulate=2,
    mixup=0.5, cutmix=1.0, randaugment=9,
)  # fmt: skip

CODE = f"""
import sys
sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1])]!r}
import torch
torch.set_num_threads(1)
from test_distributed import *
from diswot.training.loop import TrainingLoop
from torch.nn.parallel import DistributedDataParallel
student = seeded(LinearHead)
networks = []
create_step = TrainingLoop.create_step
TrainingLoop.create_step = lambda *call: networks.append(call[1]) or create_step(*call)
distill(seeded(LinearHead, 7), student, made(96, 31), RECIPE, out=sys.argv[1])
assert isinstance(networks[0], DistributedDataParallel) and networks[0].module is student
assert type(student.block1[1]) is nn.BatchNorm2d and "forward" not in vars(student.block1[1])
"""


def free_port() -> int:
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        return int(port.getsockname()[1])


def start(command: list[str], count: int, *, on_gpus: bool = False) -> None:
    """Run a command in several processes that form a group, as `accelerate launch` does."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(count)}
    runs = []
    for rank in range(count):
        mine = {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(count)}
        environment = {**os.environ, **place, **mine}
        environment |= {} if on_gpus else {"ACCELERATE_USE_CPU": "true"}
        runs.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    for run in runs:
        _, errors = run.communicate(timeout=280)
        assert run.returncode == 0, errors
        assert "FutureWarning" not in errors and "find_unused_parameters" not in errors, errors


def test_two_processes_give_the_curve_of_one(tmp_path: Path) -> None:
    """Batch statistics, relations, adapters, averages and augmentation are of whole batches."""
    start([sys.executable, "-c", CODE, str(tmp_path)], 2)
    same_as_one(tmp_path, rel=2e-4)


def same_as_one(folder: Path, rel: float) -> None:
    """Compare a training of several processes with the same training in this process."""
    one = distill(seeded(LinearHead, 7), seeded(LinearHead), made(96, 31), RECIPE)
    lines = (folder / "history.jsonl").read_text().splitlines()
    for row, line in zip(curve(one), lines, strict=True):
        other = json.loads(line)
        for name, value in row.items():
            image = 100 / 31 if name.endswith("accuracy") else 0  # a tie may fall either way
            assert other[name] == pytest.approx(value, rel=rel, abs=image), name
    weights = read_weights(folder / "student.safetensors")
    for name, value in one.student.state_dict().items():
        assert torch.allclose(weights[name], value.cpu(), rtol=5 * rel, atol=rel), name


BOXES = f"""
import sys
sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1])]!r}
import torch
torch.set_num_threads(1)
from test_distributed import *
train_boxes(sys.argv[1])
"""


def train_boxes(out: str | None) -> Distilled:
    """Train a RetinaNet, whose losses are means over images, so that shares do not matter."""
    import detectors
    from squares import RECIPE as BRIEF
    from squares import few_squares
    from squares import seeded as detector

    how = replace(BRIEF, flip=True, losses={"at": 1.0})
    pair = detector(detectors.retinanet, 8), detector(detectors.retinanet)
    return distill(*pair, few_squares(), how, out=out)


@pytest.mark.slow
def test_detectors_in_two_processes_give_the_curve_of_one(tmp_path: Path) -> None:
    start([sys.executable, "-c", BOXES, str(tmp_path)], 2)
    one = train_boxes(None)
    lines = (tmp_path / "history.jsonl").read_text().splitlines()
    for row, line in zip(curve(one), lines, strict=True):
        other = json.loads(line)
        for name, value in row.items():
            assert other[name] == pytest.approx(value, rel=2e-3, abs=1e-3), name


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
    assert [each is value for each in processes.collect(value)] == [True]
    assert processes.share(5).tolist() == [0, 1, 2, 3, 4]
    student = seeded(LinearHead)
    with processes.parallel(student, lambda: student(torch.zeros(2, 3, 8, 8)).sum()) as network:
        assert network is student


@pytest.mark.parametrize(("size", "count"), [(12, 2), (6, 2), (9, 3), (8, 4)])
def test_shares_are_a_batch(size: int, count: int) -> None:
    shares = [
        Processes.share(SimpleNamespace(rank=rank, count=count), size)  # type: ignore[arg-type]
        for rank in range(count)
    ]
    assert sorted(torch.cat(shares).tolist()) == list(range(size))
    for share in shares:
        partners = [int(i) + int(j) for i, j in zip(share, share.flip(0), strict=True)]
        assert len(share) == size // count
        assert len(share) % 2 or set(partners) == {size - 1}


def test_weights_without_a_gradient_are_found() -> None:
    student = seeded(LinearHead)

    def loss() -> Tensor:
        return student(torch.zeros(2, 3, 8, 8)).sum()

    assert not has_unused_weights(student, loss)
    student.idle = nn.Linear(2, 2)
    assert has_unused_weights(student, loss)
    student.idle.requires_grad_(False)
    assert not has_unused_weights(student, loss)
    assert all(weight.grad is None for weight in student.parameters())


def test_synchronised_layers_are_put_back_trained() -> None:
    """SyncBatchNorm cannot run on a CPU, but it holds the same weights and statistics."""
    student = seeded(LinearHead)
    layers, names = list(student.modules()), list(student.state_dict())
    with _sync_batch_norm(student):
        kinds = {type(module) for module in student.modules()}
        assert nn.SyncBatchNorm in kinds and nn.BatchNorm2d not in kinds
        assert list(student.state_dict()) == names
        with torch.no_grad():
            student.block1[1].weight.fill_(3)
            student.block1[1].running_mean.fill_(2)
    assert all(one is other for one, other in zip(student.modules(), layers, strict=True))
    assert student.block1[1].weight.tolist() == [3] * 4
    assert student.block1[1].running_mean.tolist() == [2] * 4


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="two GPUs are needed")
def test_two_gpus_give_the_curve_of_one(tmp_path: Path) -> None:
    start([sys.executable, "-c", CODE, str(tmp_path)], 2, on_gpus=True)
    same_as_one(tmp_path, rel=1e-2)
