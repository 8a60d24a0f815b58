"""The INT8 file is the network's, and its accuracy is that which ONNX Runtime has on its own."""

from __future__ import annotations

import importlib
import json
import shutil
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import Run
from data.pictures import folder as pictures
from run_folders import call, searched

from diswot.data.registry import create_dataset
from diswot.errors import UserError
from diswot.exporters import int8
from diswot.exporters.int8_comparison import FileMeasures, Int8Comparison

onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
pytest.importorskip("onnxscript", reason="needs the extra onnx")

CPU = ["CPUExecutionProvider"]


NETWORK = """
from torch import nn

def small(classes):
    first = [nn.Conv2d(3, 16, 3, 1, 1), nn.BatchNorm2d(16), nn.ReLU()]
    second = [nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU()]
    return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(512, classes))
"""


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("int8")
    (root / "mine.py").write_text(NETWORK)
    line = f"distill --student {root}/mine.py:small --teacher none --data digits --image-size 8"
    call(
        f"{line} --epochs 6 --batch-size 32 --crop 0 --precision fp32 --quiet",
        "--out",
        root / "training",
    )
    return root / "training"


@pytest.fixture(scope="module")
def exported(training: Path) -> Path:
    """The folder of the files, and of what the command prints."""
    out = StringIO()
    with redirect_stdout(out):
        call(f"export {training} --int8 --json", "--out", training / "out")
    (training / "printed.json").write_text(out.getvalue())
    return training / "out"


def digits(training: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The test images, normalised as the training says, and their labels."""
    facts = json.loads((training / "trained.json").read_text())["result"]
    data = create_dataset("digits", img_size=8)
    assert data.test is not None
    pixels = data.test.read(range(len(data.test))).numpy().astype(np.float32) / 255
    mean, std = (np.float32(facts[name]).reshape(3, 1, 1) for name in ("mean", "std"))
    return (pixels - mean) / std, data.test.labels.numpy()


def constants(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    graph = onnx.load(path).graph
    return {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}


def quantised_weights(path: Path) -> list[tuple[str, np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Operation, weights as floats, and scales of each layer with INT8 weights."""
    model, held = onnx.load(path), constants(path)
    made = {node.output[0]: node for node in model.graph.node}
    found = []
    for node in model.graph.node:
        source = made.get(node.input[1]) if node.op_type in ("Conv", "Gemm", "MatMul") else None
        if source is not None and source.input[0] in held:
            weights, scales = (held[name] for name in source.input[:2])
            assert weights.dtype == np.int8
            axis = next((a.i for a in source.attribute if a.name == "axis"), 1)
            shape = [-1 if place == axis else 1 for place in range(weights.ndim)]
            found.append((node.op_type, weights * scales.reshape(shape), scales))
    return found


def test_accuracies_are_those_that_onnx_runtime_has(training: Path, exported: Path) -> None:
    printed = json.loads((training / "printed.json").read_text())
    found, (images, labels) = printed["int8"], digits(training)
    for kind, name in (("float32", "student.onnx"), ("int8", "student_int8.onnx")):
        path = exported / name
        session = onnxruntime.InferenceSession(str(path), providers=CPU)
        right = session.run(None, {"images": images})[0].argmax(1) == labels
        measured = found[kind]
        assert measured["accuracy"] == pytest.approx(100 * right.mean(), abs=1e-3)
        assert measured["file"] == str(path) and measured["bytes"] == path.stat().st_size
        assert 0 < measured["seconds"]["low"] <= measured["seconds"]["median"]
    assert found["float32"]["accuracy"] > 80 and abs(found["loss_points"]) < 2
    assert found["test_images"] == len(labels) == 360 and found["calibration_images"] == 256
    low, median, high = (found["time_ratio"][name] for name in ("low", "median", "high"))
    assert 0 < low <= median <= high
    assert found["size_ratio"] < 0.5 and found["onnxruntime"] == onnxruntime.__version__
    names = ["student.onnx", "student_int8.onnx", "README.md"]
    assert printed["files"] == [str(exported / name) for name in names]
    assert sorted(path.name for path in exported.iterdir()) == sorted(names)


def test_weights_are_int8_with_a_scale_a_channel(exported: Path) -> None:
    """Each is within half a step of the weight in float32."""
    plain = [w for w in constants(exported / "student.onnx").values() if w.ndim in (2, 4)]
    layers = quantised_weights(exported / "student_int8.onnx")
    assert [op for op, _, _ in layers] == ["Conv", "Conv", "Gemm"]
    for operation, weights, scales in layers:
        near = [
            w
            for w in plain
            if w.shape == weights.shape and np.abs(w - weights).max() < scales.max()
        ]
        assert len(near) == 1, weights.shape
        if operation == "Conv":
            assert len(scales) == len(weights) > 1
            step = scales.reshape(-1, 1, 1, 1)
            assert (np.abs(near[0] - weights) <= 0.501 * step).all()


def test_the_range_of_the_input_is_that_of_normalised_images(
    exported: Path, training: Path
) -> None:
    """Pixels of digits are black to white, so the range is (0 - mean) / std to (1 - mean) / std."""
    facts = json.loads((training / "trained.json").read_text())["result"]
    model, held = (
        onnx.load(exported / "student_int8.onnx"),
        constants(exported / "student_int8.onnx"),
    )
    (first,) = [node for node in model.graph.node if "images" in node.input]
    assert first.op_type == "QuantizeLinear"
    scale, zero = (held[name] for name in first.input[1:])
    mean, std = facts["mean"][0], facts["std"][0]
    assert zero.dtype == np.uint8
    assert float(scale) == pytest.approx(1 / std / 255, rel=1e-4)
    assert int(zero) == pytest.approx(mean * 255, abs=1)


def test_the_card_has_both_files(exported: Path) -> None:
    card = (exported / "README.md").read_text()
    assert card.count("## Files (onnx)") == card.count("## Files (onnx, INT8)") == 1
    assert "`student_int8.onnx`. Calibrated on 256 training images." in card


def test_the_last_line_is_the_loss(run: Run, training: Path, tmp_path: Path) -> None:
    ran = run(f"export {training} --int8 --out {tmp_path}")
    assert ran.status == 0, ran.err
    *_, ratio, last = ran.out.splitlines()
    assert ratio.startswith("INT8 takes 0.") or ratio.startswith("INT8 takes 1.")
    assert "calibrated on 256 training images" in ratio
    assert last.startswith(("INT8 loses ", "INT8 gains ")) and "360 test images" in last


@pytest.mark.parametrize(
    ("accuracy", "said"),
    [
        (
            68.9,
            "INT8 loses 1.10 points of accuracy on 400 test images, which is more than one point",
        ),
        (69.0, "INT8 loses 1.00 points of accuracy on 400 test images"),
        (70.5, "INT8 gains 0.50 points of accuracy on 400 test images"),
    ],
)
def test_a_loss_of_more_than_one_point_is_said(accuracy: float, said: str) -> None:
    files = [FileMeasures(Path("a"), 10, value, (1.0, 1.0, 1.0)) for value in (70.0, accuracy)]
    assert Int8Comparison(files[0], files[1], (1.0, 1.0, 1.0), 9, 256, 400).verdict == said


def test_a_network_that_cannot_be_quantised_leaves_the_earlier_file(
    exported: Path, tmp_path: Path
) -> None:
    target = tmp_path / "student_int8.onnx"
    target.write_bytes(b"earlier")
    (tmp_path / "broken.onnx").write_bytes(b"no network")
    with pytest.raises(UserError, match="the network cannot be quantised: ") as caught:
        int8.quantise(tmp_path / "broken.onnx", target, torch.zeros(2, 3, 8, 8))
    assert "\n" not in str(caught.value) and target.read_bytes() == b"earlier"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--int8 --format torch", "--int8 goes with --format onnx, not torch"),
        ("--data digits", "--data goes with --int8"),
        ("--int8 --data noise", "--int8: noise has no training images; name others with --data"),
        ("--int8 --data {empty}/none", "--int8 needs the images of the run; name them with --data: "
         "no such folder or file of images: {empty}/none"),
        ("--int8 --data {ten}", "--int8: the classes of {ten} are not those of the student in "
         "order"),
        ("--int8 --data {two}", "--int8: {two} has 2 classes, and the student 10; name its images "
         "with --data"),
    ],
)  # fmt: skip
def test_mistakes(run: Run, training: Path, tmp_path: Path, line: str, said: str) -> None:
    ten = pictures(tmp_path / "ten", {f"class{i}": 5 for i in range(10)})
    places = {"empty": tmp_path, "ten": ten, "two": pictures(tmp_path / "two", {"a": 5, "b": 5})}
    out = tmp_path / "out"
    message = run(f"export {training} --out {out} {line.format(**places)}").mistake()
    assert message == said.format(**places) and not out.exists()


def test_images_that_are_gone(run: Run, training: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(training, tmp_path / "t"))
    kept = json.loads((folder / "trained.json").read_text())
    kept["result"]["data"] = str(tmp_path / "gone")
    (folder / "trained.json").write_text(json.dumps(kept))
    message = run(f"export {folder} --int8").mistake()
    assert message.startswith("--int8 needs the images of the run; name them with --data: no such")
    assert not (folder / "export").exists()
    images = pictures(tmp_path / "images", {str(i): 5 for i in range(10)})
    printed = run(f"export {folder} --int8 --json --data {images}").json["int8"]
    counts = printed["calibration_images"], printed["test_images"]
    assert counts == (40, 10)  # few, and all are taken


def test_an_untrained_student(run: Run, tmp_path: Path) -> None:
    message = run(f"export {searched(tmp_path / 'run')} --int8").mistake()
    assert (
        message.startswith("--int8 needs a trained student")
        and not (tmp_path / "run/export").exists()
    )


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_without_the_packages(
    run: Run, training: Path, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.import_module

    def absent(name: str, *more: Any) -> Any:
        if name.partition(".")[0] == package:
            raise ImportError(name)
        return real(name, *more)

    monkeypatch.setattr(importlib, "import_module", absent)
    message = run(f"export {training} --int8").mistake()
    assert message == f"--int8: needs {package}: pip install 'diswot[onnx]'"
