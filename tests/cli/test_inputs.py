"""What is named on the command line: teacher and data reconciled, reported and recorded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from commands import Run
from torch import nn

from diswot.cli import inputs
from diswot.cli.inputs import data_from_root
from diswot.cli.options import TeacherOptions
from diswot.data.dataset import Batch
from diswot.data.registry import create_dataset
from diswot.models.registry import create_teacher
from diswot.proxies.registry import PROXIES, get_proxy
from diswot.proxies.scorer import scorer
from diswot.utils.user_code import rooted

SMALL = "--data noise --classes 3 --image-size 8 --batch-size 6 --trials 2 --proxy params"


def test_a_teacher_of_a_library_and_what_is_recorded(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "run"
    line = f"search --teacher timm:resnet10t {SMALL} --mean 0.1 --std 0.2,0.3,0.4 --out {out}"
    assert run(line, "--json").status == 0
    config = json.loads((out / "run.json").read_text())["config"]
    assert config["mean"] == [0.1] * 3 and config["std"] == [0.2, 0.3, 0.4]
    assert (config["seed"], config["batch_size"], config["image_size"]) == (0, 6, 8)


def test_a_pretrained_teacher_of_other_classes(run: Run) -> None:
    line = f"search --teacher timm:resnet10t --pretrained {SMALL}"
    said = run(line.replace("--proxy params", "--proxy relation")).mistake()
    assert said.startswith("timm:resnet10t was trained for 1000 classes, and noise has 3: ")


def test_a_size_that_is_the_teachers(run: Run) -> None:
    line = "search --teacher timm:test_vit --data noise --classes 3 --batch-size 2 --trials 2"
    ran = run(line, "--proxy", "params")
    assert ran.status == 0 and "the size of timm:test_vit; see --image-size" in ran.err
    assert (
        "--image-size"
        not in run(f"search --teacher timm:test_vit {SMALL}".replace("8", "32", 1)).err
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--mean 0.5", "give --mean and --std together"),
        ("--mean 0.5 --std 0", "--std '0' has a zero, and images are divided by it"),
        ("--mean 0.5 --std 0.2,0.2,0", "--std '0.2,0.2,0' has a zero"),
        ("--mean 0.5 --std nan", "--std 'nan' is not three numbers with commas, or one, on the"),
        ("--mean 128,128,128 --std 1", "on the scale 0 to 1"),
        ("--mean 0.5,0.5 --std 1", "--mean '0.5,0.5' is not three numbers"),
        ("--mean nan --std 1", "--mean 'nan' is not"),
        ("--mean a --std 1", "--mean 'a' is not"),
        ("--pretrained", "no pretrained weights to fetch for resnet20"),
        ("--pretrained --teacher-weights w.pt --teacher timm:resnet18", "not both"),
    ],
)
def test_mistakes(run: Run, options: str, message: str) -> None:
    assert message in run(f"search --teacher resnet20 {SMALL} {options}").mistake()


OWN = """
import torch
from diswot.models.cifar_resnet import CifarResNet
def teacher(num_classes):
    torch.manual_seed(5)
    model = CifarResNet((1, 1, 1), num_classes)
    model.requires_grad_(False)
    model.fc.requires_grad_(True)
    return model
"""


def test_a_teacher_function_that_loads_its_weights(run: Run, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    line = f"--teacher {tmp_path}/own.py:teacher --data digits --image-size 8"

    tested = run(f"evaluate {line} --trained --json").json
    stages = (464, 2 * 2304 + 64, 4608 + 9216 + 128 + 576, 18432 + 36864 + 256 + 2176)
    assert (tested["model_params"], tested["trainable_params"]) == (sum(stages) + 650, 650)
    assert "650" in run(f"evaluate {line} --trained").out
    assert "--pretrained or --trained" in run(f"evaluate {line}").mistake()
    refused = run("evaluate --teacher resnet20 --trained").mistake()
    assert refused.startswith("--trained is for a function FILE.py:NAME that loads its weights")
    both = run(f"evaluate {line} --trained --teacher-weights w.pth").mistake()
    assert both == "give --pretrained, --trained or --teacher-weights, not both"

    found = tmp_path / "found"
    search = f"search {line} --trained --trials 2 --proxy relation --batch-size 8 --out {found}"
    searched = run(search)
    assert f"next: diswot distill {found}\n" in searched.err
    assert "no limit was given" in searched.err
    config = json.loads((found / "run.json").read_text())["config"]
    assert config["trained"] is True
    taught = run(f"distill {found} --epochs 1 --batch-size 256 --precision fp32 --json").json
    assert taught["teacher"].endswith("own.py:teacher")
    assert run(f"report {found}").status == 0
    assert "650 trainable" in (found / "report.html").read_text()


def test_a_search_names_its_images(run: Run) -> None:
    assert run("search --trials 2").mistake() == "Missing option '--data'."


def test_evaluate(run: Run, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = create_teacher("resnet20", 10)
    torch.save({"state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}},
               tmp_path / "w.pth")  # fmt: skip
    line = f"evaluate --teacher resnet20 --teacher-weights {tmp_path}/w.pth --data digits"
    result = run(f"{line} --image-size 8", "--json").json
    assert result["test_images"] == 360 and 0 <= result["test_accuracy"] <= 100
    assert "name the trained weights" in run("evaluate --teacher resnet20").mistake()
    noise = f"{line} --data noise --classes 10".replace("--data digits ", "")
    assert "has no images to test on" in run(noise).mistake()


def test_which_scores_see_trained_weights() -> None:
    """Against the scores themselves, with two teachers that differ in weights alone."""

    def net(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return create_teacher("resnet20", 4)

    names = [name for name, row in PROXIES.items() if row.needs_teacher]
    images = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    batch = Batch(images, torch.arange(8) % 4)
    found = []
    for seed in (0, 1):
        fixed = scorer(net(seed), [batch], init="kaiming", trained_teacher=True)
        student = fixed.fresh(lambda: create_teacher("resnet20", 4))
        found.append(fixed.outcomes([student], names))
    for name in names:
        one, other = (outcomes[name][0] for outcomes in found)
        if isinstance(one, float):
            assert (one != other) == get_proxy(name).compares_observations, name


@pytest.mark.parametrize("name", ["resnet20", "timm:vit_tiny_patch16_224"])
def test_a_teacher_begins_with_the_same_weights_each_time(name: str) -> None:
    """Also its positional embedding, which no initialisation of a score draws again."""
    images = create_dataset("noise", num_classes=5, img_size=224 if "vit" in name else 8)
    named = inputs.NamedTeacher(TeacherOptions(name), images, False)
    one, other = (named.model().state_dict() for _ in range(2))

    assert all(torch.equal(value, other[key]) for key, value in one.items())


def test_a_folder_is_not_taken_for_a_network_or_a_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("resnet56", "s0", "photos", "bert"):
        Path(name).mkdir()
    assert rooted("resnet56") == "resnet56"
    assert rooted("s0") == "s0"
    assert rooted("subnet:resnet56") == "subnet:resnet56"
    assert rooted("subnet:own.py:net") == f"subnet:{tmp_path}/own.py:net"
    assert rooted("hf:bert") == f"hf:{tmp_path}/bert"
    assert data_from_root("photos") == f"{tmp_path}/photos"
    assert data_from_root("digits") == "digits"
    long = json.dumps({f"a{i}": i for i in range(100)})
    assert rooted(long) == data_from_root(long) == long
