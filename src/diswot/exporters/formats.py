"""The formats of an export: each is written, read back, and held to the network itself."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from diswot.errors import ExportFailed, UserError
from diswot.exporters.model_card import About
from diswot.exporters.python_source import source
from diswot.utils import files

TOLERANCE = 1e-4  # of a logit, as a share of the largest where that is above one
BATCHES = (1, 3)  # images at a time that an export is held to

_RUN = """
import sys
sys.modules["diswot"] = None  # so that importing it fails
sys.path.insert(0, sys.argv[1])
import torch
from safetensors.torch import load_file, save_file
from student import load
with torch.no_grad():
    model = load()
    logits = {name: model(images) for name, images in load_file(sys.argv[2]).items()}
save_file(logits, sys.argv[3])
"""


@dataclass(frozen=True)
class Format:
    """A way to write a network.

    Attributes:
        write: Takes the network, the folder and what is known of it; returns the files.
        run: Takes the folder and a list of batches of images; returns their logits.
        summary: One line.
        use: Python that reads the files again, for the model card.
    """

    write: Callable[[nn.Module, Path, About], list[Path]]
    run: Callable[[Path, list[Tensor]], list[Tensor]]
    summary: str
    use: str


def check(model: nn.Module, folder: Path, kind: Format, about: About) -> float:
    """The largest difference between what was written and the network, over some batches.

    Raises:
        ExportFailed: It is too large, or what was written cannot be run.
    """
    generator = torch.Generator().manual_seed(0)
    images = [torch.randn(n, *about.image_shape, generator=generator) for n in BATCHES]
    with torch.no_grad():
        expected = [model(batch) for batch in images]
    try:
        found = kind.run(folder, images)
    except Exception as error:  # whatever a runtime raises of a file that is wrong
        raise ExportFailed(f"what was written cannot be run: {_line(error)}") from error
    worst = 0.0
    for ours, theirs in zip(expected, found, strict=True):
        if ours.shape != theirs.shape:
            shapes = f"{tuple(theirs.shape)}, not {tuple(ours.shape)}"
            raise ExportFailed(f"what was written gives logits of the shape {shapes}")
        scale = max(1.0, float(ours.abs().max()))
        difference = float((ours - theirs).abs().max()) / scale
        if not difference <= TOLERANCE:
            raise ExportFailed(f"what was written differs from the network by {difference:.2g}")
        worst = max(worst, difference)
    return worst


def _write_onnx(model: nn.Module, folder: Path, about: About) -> list[Path]:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise UserError(f"ONNX needs the package {package}: pip install 'diswot[onnx]'")

    def save(temporary: str) -> None:
        with _quiet():
            torch.onnx.export(
                model,
                (_example(about),),
                temporary,
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                external_data=False,
                dynamo=True,
            )

    path = folder / "student.onnx"
    files.write(path, save)
    return [path]


def _run_onnx(folder: Path, images: list[Tensor]) -> list[Tensor]:
    import onnxruntime

    path = str(folder / "student.onnx")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return [
        torch.from_numpy(session.run(["logits"], {"images": batch.numpy()})[0]) for batch in images
    ]


def _write_torch(model: nn.Module, folder: Path, about: About) -> list[Path]:
    with _quiet():
        shapes = ({0: torch.export.Dim("batch")},)
        program = torch.export.export(model, (_example(about),), dynamic_shapes=shapes)
    path = folder / "student.pt2"

    def save(temporary: str) -> None:
        whole = Path(f"{temporary}.pt2")
        try:
            torch.export.save(program, whole)
            os.replace(whole, temporary)
        finally:
            whole.unlink(missing_ok=True)

    files.write(path, save)
    return [path]


def _run_torch(folder: Path, images: list[Tensor]) -> list[Tensor]:
    with _quiet(), torch.no_grad():
        module = torch.export.load(folder / "student.pt2").module()
        return [module(batch) for batch in images]


def _write_safetensors(model: nn.Module, folder: Path, about: About) -> list[Path]:
    if about.timm_model is not None:
        text, state = about.timm_source(), dict(model.state_dict())
    else:
        body, state = source(model)
        text = about.header() + "\n\n\n" + body + "\n\n" + about.loader()
    state = {name: value.detach().clone().contiguous() for name, value in state.items()}
    code, weights = folder / "student.py", folder / "student.safetensors"
    files.write(weights, lambda temporary: save_file(state, temporary, {"format": "pt"}))
    files.write(code, lambda temporary: Path(temporary).write_text(text, encoding="utf-8"))
    return [code, weights]


def _run_safetensors(folder: Path, images: list[Tensor]) -> list[Tensor]:
    """In a process of its own that cannot import diswot."""
    with tempfile.TemporaryDirectory() as place:
        given, given_back = Path(place) / "images", Path(place) / "logits"
        save_file({str(i): batch for i, batch in enumerate(images)}, given)
        command = [sys.executable, "-B", "-c", _RUN, *map(str, (folder, given, given_back))]
        ran = subprocess.run(command, capture_output=True, text=True)
        if ran.returncode:
            raise RuntimeError((ran.stderr.strip().splitlines() or ["no reason given"])[-1])
        logits = load_file(given_back)
        return [logits[str(i)] for i in range(len(images))]


def _example(about: About) -> Tensor:
    """More than one image, or the exporter would take the number for fixed."""
    return torch.zeros(2, *about.image_shape)


@contextmanager
def _quiet() -> Iterator[None]:
    """Neither warnings nor progress of an exporter; what goes wrong is raised."""
    with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        warnings.simplefilter("ignore")
        yield


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


FORMATS: dict[str, Format] = {
    "onnx": Format(
        _write_onnx,
        _run_onnx,
        "ONNX, any number of images at a time",
        """import onnxruntime

session = onnxruntime.InferenceSession("student.onnx")
(logits,) = session.run(["logits"], {"images": images})  # float32, B x C x H x W""",
    ),
    "torch": Format(
        _write_torch,
        _run_torch,
        "a program of torch.export, any number of images at a time",
        """import torch

model = torch.export.load("student.pt2").module()
logits = model(images)  # float32, B x C x H x W""",
    ),
    "safetensors": Format(
        _write_safetensors,
        _run_safetensors,
        "weights, and a Python file that needs torch and safetensors",
        """from student import load

model = load()
logits = model(images)  # float32, B x C x H x W""",
    ),
}
