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
        model: Network in evaluation mode, on the CPU. A detector is written by the exporter that
            traces a pass, as the number of its boxes depends on the image.
        image: 1 x C x H x W.
    """
    program: bytes
    with torch.no_grad():
        detects = isinstance(model(image), list)
    if not detects:
        exported = torch.onnx.export(model, (image,), dynamo=True, verbose=False)
        assert exported is not None
        program = exported.model_proto.SerializeToString()
        return program
    written: Any = BytesIO()  # which the types of torch do not know
    with quiet():
        torch.onnx.export(OneImage(model).eval(), (image,), written, dynamo=False)
    program = written.getvalue()
    return program


@contextmanager
def quiet() -> Iterator[None]:
    """Hide the warnings and the progress of an exporter; errors are raised."""
    with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        warnings.simplefilter("ignore")
        yield
