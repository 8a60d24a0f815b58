"""Students for segmentation that begin with what fits of their teacher."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from commands import Run
from shapes import shapes
from torch import Tensor, nn

from diswot.costs.counts import count_params
from diswot.models.inheritance import inherit
from diswot.models.initialization import fresh
from diswot.models.registry import create_teacher
from diswot.observation.rows import logits_of
from diswot.spaces import subnet
from diswot.spaces.registry import create_space
from diswot.spaces.trials import EnumeratingTrial

TEACHERS = ("torchvision:lraspp_mobilenet_v3_large", "examples/shapes.py:teacher")
CLASSES, HEIGHT = 3, 48


@pytest.fixture(params=TEACHERS)
def name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(Path(__file__).parents[2])
    return request.param


def drawn(name: str, seed: int) -> nn.Module:
    model = fresh(lambda: create_teacher(name, CLASSES, HEIGHT), "default", seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
    return model.eval()


def logits(model: nn.Module) -> Tensor:
    images = torch.randn(2, 3, HEIGHT, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return logits_of(model.eval()(images))


def test_an_equal_student_has_the_teachers_logits(name: str) -> None:
    teacher, student = drawn(name, 0), drawn(name, 1)
    assert not torch.allclose(logits(teacher), logits(student))

    assert inherit(student, teacher).share == 1
    assert torch.equal(logits(teacher), logits(student))


def test_the_full_sub_network_is_the_teacher(name: str) -> None:
    teacher, trial = drawn(name, 0), EnumeratingTrial(last=True)
    with torch.device("meta"):
        create_space(f"subnet:{name}", CLASSES, HEIGHT)(trial)
    cut = subnet.from_teacher(teacher, trial.params, name, CLASSES, HEIGHT)

    assert cut is not teacher
    assert torch.equal(logits(cut), logits(teacher))


def test_the_least_sub_network_keeps_columns_of_the_classifier(name: str) -> None:
    teacher, trial = drawn(name, 0), EnumeratingTrial()
    with torch.device("meta"):
        create_space(f"subnet:{name}", CLASSES, HEIGHT)(trial)
    cut = subnet.from_teacher(teacher, trial.params, name, CLASSES, HEIGHT)
    head = "classifier.high_classifier" if "lraspp" in name else "classifier"
    kept, own = (m.get_submodule(head).weight[:, :, 0, 0].T for m in (cut, teacher))

    assert count_params(cut) < count_params(teacher) / 4
    assert logits(cut).shape == logits(teacher).shape
    assert len(kept) == len(own) / 4
    assert all(any(torch.equal(column, each) for each in own) for column in kept)


def test_a_found_student_starts_from_its_dense_teacher(run: Run, tmp_path: Path) -> None:
    data = shapes(tmp_path / "shapes", 10, 4)
    name = f"{Path(__file__).parents[2]}/examples/shapes.py:teacher"
    root, plain = tmp_path, "--epochs 1 --recipe plain --batch-size 10 --lr 0.01 -q"
    run(f"distill --student {name} --teacher none --data {data} {plain} --out {root}/t")
    taught = f"--teacher {name} --teacher-weights {root}/t/student.safetensors"
    search = f"--space subnet:{name} --trials 2 --batch-size 4 --proxy default_inherited"
    run(f"search {taught} --data {data} {search} --out {root}/s -q")
    found = run(f"distill {root}/s --losses kd:1 --start teacher {plain} --json").json

    assert found["start"]["from"] == "teacher" and found["start"]["share"] == 1
    assert 0 <= found["test_miou"] <= 100
