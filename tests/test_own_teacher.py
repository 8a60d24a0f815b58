"""A trained teacher as a user brings one: module in a file, weights in another, real images."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
from commands import call

DATA = Path(__file__).parents[2] / "shared" / "data"
ZIP, WEIGHTS = DATA / "cifar100.zip", DATA / "teacher" / "resnet32_cifar100.safetensors"
LOOK = "--mean 0.507,0.487,0.441 --std 0.267,0.256,0.276"

MODULE = """
from torch import nn
from torch.nn.functional import avg_pool2d, relu


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            convolution = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(convolution, nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))
        return y + self.shortcut(x)


def stage(inputs, outputs, stride):
    more = [Block(outputs, outputs, 1) for _ in range(4)]
    return nn.Sequential(Block(inputs, outputs, stride), *more)


class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1, self.layer2, self.layer3 = stage(64, 16, 1), stage(16, 32, 2), stage(32, 64, 2)
        self.linear = nn.Linear(256, classes)

    def forward(self, x):
        x = relu(self.bn1(self.conv1(x)))
        for part in (self.layer1, self.layer2, self.layer3):
            x = relu(part(x))
        return self.linear(avg_pool2d(x, 4).flatten(1))


def teacher(classes):
    return Net(classes)
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ZIP.is_file() and WEIGHTS.is_file()), reason=f"no teacher in {DATA}"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("own")
    (root / "mine.py").write_text(MODULE)
    with zipfile.ZipFile(ZIP) as archive:
        archive.extractall(root)
    return root


def run(place: Path, command: str, *options: str) -> Any:
    line = f"{command} --teacher {place}/mine.py:teacher --data {place}/cifar100 {LOOK}"
    return call(line, *options)


def test_its_accuracy(place: Path) -> None:
    tested = run(place, "evaluate", "--teacher-weights", str(WEIGHTS), "--json").json
    assert tested["test_images"] == 10_000
    assert tested["test_accuracy"] == pytest.approx(71.70, abs=0.005)


@pytest.mark.parametrize("proxy", ["default", "relation"])
def test_search_with_and_without_its_weights(place: Path, proxy: str) -> None:
    options = ["--proxy", proxy, "--max-params", "0.4M", "--json"]
    fresh = run(place, "search", *options)
    trained = run(place, "search", *options, "--teacher-weights", str(WEIGHTS))
    scores = [[row["score"] for row in ran.json["top"]] for ran in (fresh, trained)]
    assert fresh.json["scored"] == trained.json["scored"] == 35
    warned = "trained weights change nothing in default" in trained.err
    assert (scores[0] == scores[1]) == warned == (proxy == "default")


def test_the_papers_score_needs_equal_widths(place: Path) -> None:
    ran = run(place, "search", "--proxy", "diswot", "--max-params", "0.1M")
    said = ran.mistake(status=1)
    assert "teacher (100, 256), student (100, 64); the default score takes any" in said
