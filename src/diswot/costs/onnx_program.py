"""Networks as programs of ONNX, for one image of fixed size.

Letters: C channels, H x W pixels, n boxes of an image.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import BytesIO, StringIO
from typing import Any

import torch
from torch import Tensor, nn

from diswot.utils.optional_imports import imported

BOXES = ("boxes", "labels", "scores")


class OneImage(nn.Module):
    """A detector that takes one image as a batch and returns tensors: boxes, labels, scores."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the boxes of the first image, n x 4, their labels and their scores, n each."""
        found = self.model([images[0]])[0]
        return tuple(found[name] for name in BOXES)


def check_onnx(prefix: str) -> None:
    """Check that the packages that write and run ONNX are installed.

    Raises:
        UserError: One is missing; the error begins with the prefix.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        imported(package, prefix, "onnx")


def onnx_program(model: nn.Module, image: Tensor) -> bytes:
    """Return a network as a program of ONNX, in float32.

    Args:
        model: Network in evaluation mode, on the CPU; a detector, too.
        image: 1 x C x H x W.
    """
    with torch.no_grad():
        detects = isinstance(model(image), list)
    if not detects:
        exported = torch.onnx.export(model, (image,), dynamo=True, verbose=False)
        assert exported is not None
        program: bytes = exported.model_proto.SerializeToString()
        return program
    written = BytesIO()
    write_detector(model, image, written)
    return written.getvalue()


def write_detector(model: nn.Module, image: Tensor, target: Any) -> None:
    """Write a detector for one image of fixed size, 1 x C x H x W, to a file or its path.

    The exporter traces a pass, as the number of boxes depends on the image.
    """
    with quiet():
        torch.onnx.export(
            OneImage(model).eval(),
            (image,),
            target,
            input_names=["images"],
            output_names=list(BOXES),
            dynamic_axes={name: {0: "n"} for name in BOXES},
            dynamo=False,
        )


def onnx_session(program: bytes | str, threads: int = 0) -> Any:
    """Return a session of ONNX Runtime on the CPU for a program or its path; 0 threads are all."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(program, options, providers=["CPUExecutionProvider"])


@contextmanager
def quiet() -> Iterator[None]:
    """Hide the warnings and the progress of an exporter; errors are raised."""
    with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        warnings.simplefilter("ignore")
        yield
