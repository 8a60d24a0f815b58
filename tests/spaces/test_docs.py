"""The code of docs/spaces.md runs, and so do the examples."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from commands import Run

from diswot.spaces import imagenet_resnet
from diswot.spaces.registry import SPACES, Params, build_network, create_space
from diswot.spaces.trials import EnumeratingTrial

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "spaces.md").read_text()
WIDER, SUBNET, MINE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_template_is_searched(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its own name, in its own words, on smaller images."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MINE)
    (line,) = re.findall(r"diswot (search .*--space mine.py:space .*)", PAGE)
    small = "--trials 3 --image-size 8 --batch-size 8 --proxy diswot --quiet --json"
    found = run(f"{line} {small}").json

    assert found["scored"] == 3 and found["best"]["model_params"] <= 100_000
    assert Path("runs/mine/found.json").is_file()


def test_wider_space() -> None:
    names: dict[str, object] = {}
    exec(WIDER, names)
    params: Params = {"stages": 3}
    for i, width in enumerate((32, 64, 128), 1):
        params |= {f"block_{i}": "basic", f"kernel_{i}": 3, f"width_{i}": width, f"depth_{i}": 1}
    model = build_network(lambda trial: names["for_resnet50"](trial, 10, 32), params)  # type: ignore[operator]

    assert model.fc.in_features == 2048
    assert imagenet_resnet.build(EnumeratingTrial()).fc.in_features == 512


def test_sub_network_of_a_trained_teacher() -> None:
    names: dict[str, object] = {}
    exec(SUBNET, names)

    assert [len(names["student"].get_submodule(f"layer{i}")) for i in (1, 2, 3)] == [1, 2, 3]  # type: ignore[attr-defined]


def test_table_lists_every_space() -> None:
    table = PAGE[PAGE.index("| space |") : PAGE.index("The spaces hold published networks")]

    assert set(re.findall(r"`(\w+)", table)) >= SPACES.keys()


def example(name: str, out: Path, *options: str) -> tuple[str, dict[str, object]]:
    """Run an example as a user would; what it printed, and what was found."""
    command = [sys.executable, str(ROOT / "examples" / name), "--out", str(out), *options]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    found: dict[str, object] = json.loads((out / "found" / "found.json").read_text())
    return ran.stdout, found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "space", "limit", "accuracy"),
    [("own_space.py", "space", 1e5, 80), ("transformer.py", "", 6e6, 20)],
)
def test_example(name: str, space: str, limit: float, accuracy: float, tmp_path: Path) -> None:
    """A transformer learns little in four epochs, but more than chance, 10 %."""
    printed, found = example(name, tmp_path)

    assert printed.count("$ diswot ") == 3
    assert found["best"]["model_params"] <= limit  # type: ignore[index]
    trained = json.loads((tmp_path / "found" / "distilled" / "trained.json").read_text())
    assert trained["result"]["test_accuracy"] > accuracy
    build = f"{ROOT}/examples/{name}:{space}" if space else "autoformer"
    build_network(create_space(build, 10, 16 if space else 8), found["best"]["params"])  # type: ignore[index]
