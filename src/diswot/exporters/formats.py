"""Formats of an export; each can write a network, and run the written files for the check."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from diswot.costs.onnx_program import check_onnx, onnx_session, quiet
from diswot.errors import ExportFailed, one_line
from diswot.exporters.model_card import StudentDescription
from diswot.exporters.python_source import source
from diswot.observation.rows import logits_of
from diswot.utils import files

ONNX = "student.onnx"
TOLERANCE = 1e-4  # difference of a logit, relative to the largest logit if that exceeds 1
BATCHES = (1, 3)  # batch sizes of the check

_RUN = """
import sys
sys.modules["diswot"] = None  # an import of diswot fails
sys.path.insert(0, sys.argv[1])
import torch
from safetensors.torch import load_file, save_file
from student import load
with torch.no_grad():
    model = load()
    found = {name: model(images) for name, images in load_file(sys.argv[2]).items()}
found = {name: each["out"] if isinstance(each, dict) else each for name, each in found.items()}
save_file({name: each.contiguous() for name, each in found.items()}, sys.argv[3])
"""


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes:
        write: Writes a network to a folder and returns the paths of the files.
        run: Computes the logits of batches of images from the files in a folder.
        use: Python code that loads the files, for the model card.
    """

    write: Callable[[nn.Module, Path, StudentDescription], list[Path]]
    run: Callable[[Path, list[Tensor]], list[Tensor]]
    use: str


def check(model: nn.Module, folder: Path, kind: Format, description: StudentDescription) -> float:
    """Return the largest relative difference between logits of the files and of the network.

    Raises:
        ExportFailed: The difference exceeds `TOLERANCE`, or the files cannot be run.
    """
    generator = torch.Generator().manual_seed(0)
    images = [torch.randn(n, *description.image_shape, generator=generator) for n in BATCHES]
    with torch.no_grad():
        expected = [logits_of(model(batch)) for batch in images]
    try:
        found = kind.run(folder, images)
    except Exception as error:  # a runtime may raise anything for a wrong file
        raise ExportFailed(f"the exported file cannot be run: {reason_of(error)}") from error
    worst = 0.0
    for logits, exported in zip(expected, found, strict=True):
        if logits.shape != exported.shape:
            shapes = f"{tuple(exported.shape)}, not {tuple(logits.shape)}"
            raise ExportFailed(f"the exported file computes logits of the shape {shapes}")
        scale = max(1.0, float(logits.abs().max()))
        difference = float((logits - exported).abs().max()) / scale
        if not difference <= TOLERANCE:
            raise ExportFailed(f"the exported file differs from the network by {difference:.2g}")
        worst = max(worst, difference)
    return worst


def _write_onnx(model: nn.Module, folder: Path, description: StudentDescription) -> list[Path]:
    check_onnx("--format onnx")
    returning, sizes = _returning_logits(model, description)

    def save(temporary: str) -> None:
        with quiet():
            torch.onnx.export(
                returning,
                (_example(description),),
                temporary,
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=(sizes,),
                external_data=False,
                dynamo=True,
            )

    path = folder / ONNX
    files.write(path, save)
    return [path]


def _run_onnx(folder: Path, images: list[Tensor]) -> list[Tensor]:
    run = onnx_function(folder / ONNX, ["logits"])
    return [run(batch)[0] for batch in images]


def onnx_function(
    path: Path, outputs: list[str], threads: int = 0
) -> Callable[[Tensor], list[Tensor]]:
    """Return an ONNX file as a function of images on the CPU; 0 threads are all."""
    session = onnx_session(str(path), threads)
    return lambda images: [
        torch.from_numpy(each) for each in session.run(outputs, {"images": images.numpy()})
    ]


def _write_torch(model: nn.Module, folder: Path, description: StudentDescription) -> list[Path]:
    returning, _ = _returning_logits(model, description)
    with quiet():
        shapes = ({0: torch.export.Dim("batch")},)
        program = torch.export.export(returning, (_example(description),), dynamic_shapes=shapes)
    path = folder / "student.pt2"

    def save(temporary: str) -> None:
        with open(temporary, "wb") as file:
            torch.export.save(program, file)

    files.write(path, save)
    return [path]


def _run_torch(folder: Path, images: list[Tensor]) -> list[Tensor]:
    with quiet(), torch.no_grad():
        module = torch.export.load(folder / "student.pt2").module()
        return [module(batch) for batch in images]


def _write_safetensors(
    model: nn.Module, folder: Path, description: StudentDescription
) -> list[Path]:
    if description.timm_model is not None:
        text, state = description.timm_source(), dict(model.state_dict())
    else:
        body, state = source(model)
        text = description.header() + "\n\n\n" + body + "\n\n" + description.loader()
    state = {name: value.detach().clone().contiguous() for name, value in state.items()}
    code, weights = folder / "student.py", folder / "student.safetensors"
    files.write(weights, lambda temporary: save_file(state, temporary, {"format": "pt"}))
    files.write_text(code, text)
    return [code, weights]


def _run_safetensors(folder: Path, images: list[Tensor]) -> list[Tensor]:
    """Run the file in a process that cannot import diswot."""
    with tempfile.TemporaryDirectory() as place:
        inputs, outputs = Path(place) / "images", Path(place) / "logits"
        save_file({str(i): batch for i, batch in enumerate(images)}, inputs)
        command = [sys.executable, "-B", "-c", _RUN, *map(str, (folder, inputs, outputs))]
        ran = subprocess.run(command, capture_output=True, text=True)
        if ran.returncode:
            raise RuntimeError((ran.stderr.strip().splitlines() or ["no error message"])[-1])
        logits = load_file(outputs)
        return [logits[str(i)] for i in range(len(images))]


class _Logits(nn.Module):
    """A dense network that returns its logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return logits_of(self.model(images))


def _returning_logits(
    model: nn.Module, description: StudentDescription
) -> tuple[nn.Module, dict[int, torch.export.Dim]]:
    """Return a network whose output is one tensor, and the sizes that may vary in ONNX.

    Images of a dense network may have any height and width there.
    """
    with torch.no_grad():
        outputs = model(_example(description))
    varying = {0: torch.export.Dim("batch")}
    if logits_of(outputs).ndim == 4:
        varying |= {2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
    return (model if isinstance(outputs, Tensor) else _Logits(model)), varying


def _example(description: StudentDescription) -> Tensor:
    """Return two images, as torch specialises a batch size of one."""
    return torch.zeros(2, *description.image_shape)


def reason_of(error: Exception) -> str:
    """Return the type and the beginning of the message of an exception in one line."""
    return one_line(error)[:300]


FORMATS: dict[str, Format] = {
    "onnx": Format(
        _write_onnx,
        _run_onnx,
        """import onnxruntime

session = onnxruntime.InferenceSession("student.onnx")
(logits,) = session.run(["logits"], {"images": images})  # float32, B x C x H x W""",
    ),
    "torch": Format(
        _write_torch,
        _run_torch,
        """import torch

model = torch.export.load("student.pt2").module()
logits = model(images)  # float32, B x C x H x W""",
    ),
    "safetensors": Format(
        _write_safetensors,
        _run_safetensors,
        """from student import load

model = load()
logits = model(images)  # float32, B x C x H x W""",
    ),
}
