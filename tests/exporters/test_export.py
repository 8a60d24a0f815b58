"""Exports are what the network is, or are not there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from commands import Run
from run_folders import distilled, edited, searched
from safetensors.torch import load_file, save_file
from tiny_training import measure_result
from torch import nn
from toys import CLASSES, LinearHead, seeded

from diswot.data.registry import create_dataset
from diswot.errors import ExportFailed, UserError
from diswot.exporters.export import export
from diswot.exporters.formats import FORMATS, Format
from diswot.exporters.model_card import StudentDescription
from diswot.models.registry import create_teacher
from diswot.models.weights import load_weights
from diswot.runs.folder import search_config
from diswot.spaces.registry import SPACES, build_network, construct, create_space

FILES = {
    "onnx": ["student.onnx"],
    "torch": ["student.pt2"],
    "safetensors": ["student.py", "student.safetensors"],
}
ABOUT = StudentDescription(
    "toy", (3, 8, 8), tuple("abcde"), (0.5,) * 3, (0.25,) * 3, {"a": 1}, {}, None
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return distilled(tmp_path_factory.mktemp("export") / "run")


@pytest.fixture
def model() -> nn.Module:
    made = seeded(LinearHead)
    made.train()(torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(1)))
    return made


@pytest.mark.parametrize("kind", FORMATS)
def test_written_and_checked(kind: str, model: nn.Module, tmp_path: Path) -> None:
    modes = [m.training for m in model.modules()]
    written = export(model, tmp_path / "out", kind, ABOUT)
    assert sorted(path.name for path in written) == sorted([*FILES[kind], "README.md"])
    assert sorted(tmp_path.glob("out/*")) == sorted(written)
    assert [m.training for m in model.modules()] == modes
    images = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    (logits,) = FORMATS[kind].run(tmp_path / "out", [images])
    with torch.no_grad():
        torch.testing.assert_close(logits, model.eval()(images), rtol=0, atol=1e-4)


def broken(folder: Path, images: list[torch.Tensor]) -> list[torch.Tensor]:
    return [torch.full((len(batch), CLASSES), 0.1) for batch in images]


def cut(folder: Path, images: list[torch.Tensor]) -> list[torch.Tensor]:
    return [torch.zeros(len(batch), CLASSES - 1) for batch in images]


def raising(folder: Path, images: list[torch.Tensor]) -> list[torch.Tensor]:
    raise RuntimeError("no such\nfile")


def not_a_number(folder: Path, images: list[torch.Tensor]) -> list[torch.Tensor]:
    return [torch.full((len(batch), CLASSES), torch.nan) for batch in images]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [(broken, "differs from the network"), (cut, "logits of the shape"),
     (raising, "cannot be run: RuntimeError: no such file"), (not_a_number, "differs")],
)  # fmt: skip
def test_a_wrong_one_is_removed(
    wrong: Any, reason: str, model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FORMATS, "torch", replace(FORMATS["torch"], run=wrong))
    with pytest.raises(ExportFailed, match=reason):
        export(model, tmp_path, "torch", ABOUT)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("imported_here")
def test_a_changed_weight_is_found(model: nn.Module, tmp_path: Path) -> None:
    right = FORMATS["safetensors"]

    def write(model: nn.Module, folder: Path, description: StudentDescription) -> list[Path]:
        paths = right.write(model, folder, description)
        state = load_file(paths[1])
        state["fc.bias"] = state["fc.bias"] + 0.01
        save_file(state, paths[1])
        return paths

    wrong = Format(write, right.run, "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FORMATS, "safetensors", wrong)
        with pytest.raises(ExportFailed, match=r"differs from the network by 0\.0"):
            export(model, tmp_path, "safetensors", ABOUT)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("imported_here")
def test_formats_of_one_student_are_on_one_card(model: nn.Module, tmp_path: Path) -> None:
    for kind in ("torch", "safetensors", "torch"):
        export(model, tmp_path, kind, ABOUT)
    card = (tmp_path / "README.md").read_text()
    assert re.findall(r"## \w+( .*)?$", card, re.MULTILINE).count(" (torch)") == 1
    assert "student.pt2" in card and "## Files (safetensors)" in card
    assert card.count("## Licence") == card.count("## Architecture") == 1
    export(model, tmp_path, "torch", replace(ABOUT, facts={"teacher": "another"}))
    assert "safetensors" not in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("text", [b"# My project\n", b"\xff"])
def test_a_readme_of_others_is_kept(text: bytes, model: nn.Module, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(text)
    with pytest.raises(UserError, match=r"README\.md"):
        export(model, tmp_path, "torch", ABOUT)
    assert (tmp_path / "README.md").read_bytes() == text and len(list(tmp_path.iterdir())) == 1


def test_no_such_format(model: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown format 'onxn'; did you mean onnx"):
        export(model, tmp_path, "onxn", ABOUT)


@pytest.mark.usefixtures("imported_here")
def test_the_distilled_student_without_diswot(run: Run, trained: Path, tmp_path: Path) -> None:
    """Alone in a process, on the test images, it is as right as the training says."""
    out = tmp_path / "out"
    ran = run(f"export {trained} --format safetensors --json --out {out}")
    assert ran.json["trained"] and ran.json["format"] == "safetensors"
    images = create_dataset("digits", img_size=8)
    assert images.test is not None
    pixels = images.test.read(range(len(images.test))).contiguous()
    save_file({"pixels": pixels, "labels": images.test.labels}, tmp_path / "images")
    script = (
        "import sys; sys.modules['diswot'] = None; sys.path.insert(0, sys.argv[1])\n"
        "import torch; from student import *; from safetensors.torch import load_file\n"
        "held = load_file(sys.argv[2]); mean, std = (torch.tensor(v).view(3, 1, 1) for v in "
        "(MEAN, STD))\n"
        "logits = load()((held['pixels'] / 255 - mean) / std)\n"
        "print(100 * float((logits.argmax(1) == held['labels']).float().mean()), CLASSES)\n"
    )
    line = [sys.executable, "-c", script, str(out), str(tmp_path / "images")]
    printed = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    result = json.loads((trained / "distilled" / "trained.json").read_text())["result"]
    assert float(printed.split()[0]) == pytest.approx(result["test_accuracy"], abs=0.3)
    assert printed.split(maxsplit=1)[1].strip() == str(images.classes)
    card = (out / "README.md").read_text()
    for fact in (f"`{result['test_accuracy']:.2f}`", "`digits`", "`resnet20`", "Licence"):
        assert fact in card
    assert "NOT trained" not in (out / "student.py").read_text()


@pytest.mark.usefixtures("imported_here")
def test_weights_of_another_training(run: Run, trained: Path, tmp_path: Path) -> None:
    run(f"export {trained} --format safetensors --trained {trained}/alone --out {tmp_path}")
    job = search_config(trained)
    model = build_network(create_space("s0", 10, 8), json.loads(job["student"]))
    load_weights(model, trained / "alone" / "student.safetensors")
    images = create_dataset("digits", img_size=8)
    assert measure_result(model, images) > 0
    batch = images.batch(6).images.contiguous()
    (logits,) = FORMATS["safetensors"].run(tmp_path, [batch])
    with torch.no_grad():
        torch.testing.assert_close(logits, model.eval()(batch), rtol=0, atol=1e-4)
    assert "none: trained alone" in (tmp_path / "README.md").read_text()


NEEDED = {"onnx": ("onnx", "onnxruntime", "onnxscript")}


def rows(folder: Path) -> dict[str, str]:
    """Of the model card's table."""
    lines = (folder / "README.md").read_text().splitlines()
    cells = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    return {row[0]: row[1].strip("`") for row in cells if len(row) == 2}


@pytest.mark.usefixtures("imported_here")
@pytest.mark.parametrize("kind", FORMATS)
def test_a_training_without_a_search(kind: str, run: Run, trained: Path, tmp_path: Path) -> None:
    """A network by its name, trained alone: the card says so."""
    for package in NEEDED.get(kind, ()):
        pytest.importorskip(package)
    folder = Path(shutil.copytree(trained / "teacher", tmp_path / "t"))
    assert run(f"export {folder} --format {kind} --json").json["trained"]
    model = create_teacher("resnet20", 10, 8)
    load_weights(model, folder / "student.safetensors")
    batch = create_dataset("digits", img_size=8).batch(6).images.contiguous()
    (logits,) = FORMATS[kind].run(folder / "export", [batch])
    with torch.no_grad():
        torch.testing.assert_close(logits, model.eval()(batch), rtol=0, atol=1e-4)
    kept = json.loads((folder / "trained.json").read_text())
    result, facts = kept["result"], rows(folder / "export")
    assert facts["search"] == "none recorded: the network was named" and "teacher" not in facts
    assert facts["distilled from"] == "none: trained alone" and facts["data"] == "digits"
    assert facts["test accuracy, %"] == f"{result['test_accuracy']:.2f}"
    card = (folder / "export" / "README.md").read_text()
    assert "- `network`: `resnet20`" in card and "Not trained" not in card
    assert facts["training"] == " ".join(kept["command"])
    if kind == "safetensors":
        source = (folder / "export" / "student.py").read_text()
        assert "network that DisWOT trained; no search is recorded" in source


@pytest.mark.usefixtures("imported_here")
def test_a_training_of_a_found_student(run: Run, trained: Path, tmp_path: Path) -> None:
    """It remembers the search, wherever it is taken."""
    kept = json.loads((trained / "run.json").read_text())["command"]
    for name, teacher in (("distilled", "resnet20"), ("alone", "none: trained alone")):
        folder = Path(shutil.copytree(trained / name, tmp_path / name))
        assert run(f"export {folder} --format safetensors").status == 0
        facts = rows(folder / "export")
        assert facts["search"] == " ".join(kept) and facts["distilled from"] == teacher
        assert facts["space"] == "s0"


@pytest.mark.usefixtures("imported_here")
def test_a_student_that_is_named_beside_a_search(run: Run, trained: Path, tmp_path: Path) -> None:
    student = '{"blocks1": 1, "blocks2": 1, "blocks3": 1}'
    line = "--teacher none --epochs 1 --batch-size 512 --precision fp32 --quiet"
    run(f"distill {trained} {line} --out {tmp_path}/a --student", student)
    run(f"distill {trained} {line} --out {tmp_path}/b --student 1")
    for name in ("a", "b"):
        assert run(f"export {tmp_path}/{name} --format safetensors").status == 0
    assert rows(tmp_path / "a" / "export")["search"].startswith("none recorded")
    kept = json.loads((trained / "run.json").read_text())["command"]
    assert rows(tmp_path / "b" / "export")["search"] == " ".join(kept)


@pytest.mark.slow
def test_a_training_of_a_model_of_timm(run: Run, tmp_path: Path) -> None:
    student = "distill --student timm:mobilenetv3_small_050 --teacher none --data digits"
    ran = run(f"{student} --image-size 32 --epochs 1 --batch-size 256 --quiet --out {tmp_path}/t")
    assert ran.status == 0, ran.err
    ran = run(f"export {tmp_path}/t --format safetensors")
    assert ran.status == 0, ran.err
    source = (tmp_path / "t" / "export" / "student.py").read_text()
    assert "timm.create_model('mobilenetv3_small_050', num_classes=10)" in source


@pytest.mark.usefixtures("imported_here")
def test_weights_of_another_student(run: Run, trained: Path, tmp_path: Path) -> None:
    """As after a search that went on and found a better one; they may even fit its network."""
    folder = Path(shutil.copytree(trained, tmp_path / "run"))
    edited(folder / "found.json", lambda found: found["best"]["params"].update(blocks1=5))
    for line, place in (("", "distilled"), (f"--trained {folder}/teacher", "teacher")):
        message = run(f"export {folder} {line}").mistake()
        assert message == (
            f"{folder}/{place} holds the training of another student than the one found in "
            f"{folder}; diswot export {folder}/{place} takes that one"
        )
    assert run(f"export {folder}/distilled --format safetensors").status == 0


def test_trainings_that_cannot_be_exported(run: Run, trained: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained / "teacher", tmp_path / "t"))
    both = run(f"export {folder} --trained {trained}/alone").mistake()
    assert both == f"{folder} is a training itself; leave --trained out"
    edited(folder / "trained.json", lambda kept: kept["result"].pop("classes"))
    assert "does not tell enough to build the network" in run(f"export {folder}").mistake()
    (folder / "trained.json").unlink()
    message = f"the training in {folder} has not finished; continue it with --resume"
    assert run(f"export {folder}").mistake() == message


@pytest.mark.usefixtures("imported_here")
def test_untrained_is_said(run: Run, tmp_path: Path) -> None:
    folder = searched(tmp_path / "run")
    ran = run(f"export {folder} --format safetensors")
    assert ran.status == 0 and "so its weights are random; --trained names a training" in ran.err
    card = (folder / "export" / "README.md").read_text()
    assert "**Not trained" in card and "test accuracy" not in card


@pytest.mark.usefixtures("imported_here")
def test_a_training_on_other_images_than_the_search(run: Run, tmp_path: Path) -> None:
    """The student has the classes and the images of its training."""
    folder = tmp_path / "run"
    search = "search --teacher resnet20 --space s0 --image-size 8 --proxy params --trials 2 --quiet"
    assert run(f"{search} --data noise --classes 30 --sampler random --out {folder}").status == 0
    line = "--teacher none --data digits --image-size 8 --epochs 1 --batch-size 256 --quiet"
    assert run(f"distill {folder} {line}").status == 0
    assert run(f"export {folder} --trained {folder}/alone --format safetensors").status == 0
    assert rows(folder / "export")["data"] == "digits"
    (logits,) = FORMATS["safetensors"].run(folder / "export", [torch.zeros(3, 3, 8, 8)])
    assert logits.shape == (3, 10)


@pytest.mark.usefixtures("imported_here")
def test_hostile_names_in_the_card_and_the_source(trained: Path, run: Run, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / 'a"""b`|c'))
    hostile = 'x"""\nimport os | `rm`'
    edited(folder / "run.json", lambda kept: kept.update(command=["diswot", hostile]))
    edited(folder / "distilled" / "trained.json", lambda t: t["result"].update(teacher=hostile))
    ran = run("export", str(folder), "--format", "safetensors")
    assert ran.status == 0, ran.err
    compile((folder / "export" / "student.py").read_text(), "student.py", "exec")
    lines = (folder / "export" / "README.md").read_text().splitlines()
    row = next(line for line in lines if line.startswith("| distilled from"))
    assert row == '| distilled from | `x""" import os \\| \'rm\'` |'


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("export {empty}", "is no folder of a search"),
        ("export {run} --format tflite", "unknown format"),
        ("export {run} --trained {empty}", "cannot read"),
    ],
)
def test_mistakes(run: Run, trained: Path, tmp_path: Path, line: str, reason: str) -> None:
    assert reason in run(line.format(run=trained, empty=tmp_path)).mistake()


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    "name",
    [
        row.example or name
        for name, row in SPACES.items()
        if name not in ("timm_zoo", "detector")  # detectors are written as ONNX alone
    ],
)
def test_every_space_in_every_format(name: str, kind: str, tmp_path: Path) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=3))
    build = create_space(name, 5, 32)
    while True:
        trial = study.ask()
        try:
            model = construct(build, trial)
            break
        except UserError:  # a cell without a path
            continue
    about = replace(ABOUT, image_shape=(3, 32, 32), params=trial.params)
    assert len(export(model, tmp_path, kind, about)) == len(FILES[kind]) + 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "vit_tiny_patch16_224"])
def test_a_model_of_timm(name: str, run: Run, tmp_path: Path) -> None:
    search = "search --teacher resnet20 --data digits --image-size 32 --batch-size 4 --quiet"
    run(f"{search} --space timm_zoo:{name} --proxy params --trials 1 --out {tmp_path}")
    ran = run(f"export {tmp_path} --format safetensors")
    assert ran.status == 0, ran.err
    assert f"timm.create_model('{name}'" in (tmp_path / "export" / "student.py").read_text()


def test_a_users_own_space_that_cannot_be_written(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Odd(nn.Module):\n"
        "    def __init__(self, classes, width):\n"
        "        super().__init__()\n"
        "        self.conv, self.fc = nn.Conv2d(3, width, 3), nn.Linear(width, classes)\n"
        "    def forward(self, x):\n"
        "        x = self.conv(x)\n"
        "        for _ in range(int(x.detach().abs().max() >= 0)):\n"
        "            x = x.relu()\n"
        "        return self.fc(x.mean((2, 3)))\n"
        "def space(trial, classes):\n"
        "    return Odd(classes, trial.suggest_int('width', 4, 5))\n"
    )
    search = "search --teacher resnet20 --data digits --image-size 8 --batch-size 4 --quiet"
    done = run(f"{search} --space {tmp_path}/mine.py:space --proxy params --out {tmp_path}/run")
    assert done.status == 0, done.err
    said = run(f"export {tmp_path}/run --format safetensors").mistake()
    assert "cannot be written as source" in said and "--format onnx or torch" in said


class Turned(LinearHead):
    """A network whose logits are not contiguous in memory."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images).t().contiguous().t()


def test_logits_that_are_not_contiguous(tmp_path: Path) -> None:
    assert export(seeded(Turned), tmp_path, "safetensors", ABOUT)
