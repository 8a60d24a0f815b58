"""`diswot list --file`."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import Run

MINE = '''
from os.path import join
import optuna
from optuna.samplers import BaseSampler, RandomSampler
from torch import nn
from torch.utils.data import Dataset
from diswot.knowledge.registry import Knowledge
from diswot.proxies.registry import Proxy

class Net(nn.Module):
    """A network."""
    def __init__(self, num_classes): ...

class Images(Dataset):
    def __len__(self): return 1

class Own(RandomSampler): ...

def build(num_classes, img_size=32): ...
def teacher() -> nn.Module: ...
def images(img_size) -> "Dataset": ...
def sampler(seed): ...
def unclear(): ...
def space(trial, num_classes): ...
def annotated(t: optuna.Trial): ...
def score(candidate): ...
def number(x) -> float: ...
def one(x): ...
def gap(teacher, student, temperature=4.0):
    """The gap.

    More.
    """
def three(a, b, c): ...
def _hidden(): ...
ROW = Proxy(score, "a row", "")
DISTANCE = Knowledge(gap, "a distance", "")
VALUE = 3
'''


def test_what_a_file_offers(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    found = run(f"list --file {path} --json").json[str(path)]
    assert found == {
        "Net": ["teacher", "A network."],
        "Images": ["data", found["Images"][1]],
        "Own": ["sampler", found["Own"][1]],
        "build": ["teacher, data", ""],
        "teacher": ["teacher", ""],
        "images": ["data", ""],
        "sampler": ["sampler", ""],
        "unclear": ["teacher, data, sampler", ""],
        "space": ["space", ""],
        "annotated": ["space", ""],
        "score": ["proxy", ""],
        "number": ["proxy", ""],
        "one": ["space, proxy", ""],
        "gap": ["losses, proxy", "The gap."],
        "ROW": ["proxy", "a row"],
        "DISTANCE": ["losses, proxy", "a distance"],
    }
    shown = run(f"list --file {path}").out
    assert "losses, proxy" in shown and "The gap." in shown and "three" not in shown


def test_a_module_of_a_package(run: Run) -> None:
    found = run("list --file diswot.knowledge.relation --json").json
    assert found["diswot.knowledge.relation"]["relation"][0] == "losses, proxy"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "no such file: "),
        ("x = 1", "mine.py has no function that an option takes"),
        ("1 / 0", "mine.py fails to import: ZeroDivisionError: division by zero (line 1)"),
    ],
)
def test_mistakes(run: Run, tmp_path: Path, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / "mine.py").write_text(text)
    assert said in run(f"list --file {tmp_path}/mine.py").mistake()
    assert "no module no.such.thing" in run("list --file no.such.thing").mistake()
