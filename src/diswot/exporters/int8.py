"""INT8 file of an exported student, quantised by ONNX Runtime.

The quantisation is static, in the QDQ format: weights are signed and have a scale a channel;
activations are unsigned, and their ranges are the extremes over some training images.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from diswot.costs.onnx_program import quiet
from diswot.data.dataset import Dataset
from diswot.errors import UserError
from diswot.exporters.export import CARD, read_card
from diswot.exporters.formats import FORMATS, ONNX, reason_of
from diswot.exporters.int8_comparison import Int8Comparison, compare
from diswot.exporters.model_card import StudentDescription, with_other_formats
from diswot.utils import environment, files

INT8 = "student_int8.onnx"
CALIBRATION = 256  # training images
_PART = 32  # images of a pass


def export_int8(
    folder: Path,
    description: StudentDescription,
    data: Dataset,
    on_tested: Callable[[int], None] = lambda done: None,
) -> Int8Comparison:
    """Quantise the float32 file in a folder, and measure both files.

    The comparison stands on the model card, too.

    Raises:
        UserError: The network cannot be quantised, or a file cannot be written.
    """
    assert data.train is not None
    count = min(CALIBRATION, len(data.train))
    float32, int8 = folder / ONNX, folder / INT8
    quantise(float32, int8, data.batch(count).images.contiguous())
    found = compare(float32, int8, data, count, on_tested)
    card = folder / CARD
    use = FORMATS["onnx"].use.replace(ONNX, INT8)
    text = description.card("onnx, INT8", use, [INT8], _checked(found))
    files.write_text(card, with_other_formats(text, read_card(card)))
    return found


def quantise(source: Path, target: Path, images: Tensor) -> None:
    """Write the INT8 file of an ONNX file, calibrated on normalised images, B x 3 x S x S.

    Raises:
        UserError: The network cannot be quantised, or the file cannot be written.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as place:
        prepared, quantised = Path(place) / "prepared.onnx", Path(place) / INT8
        try:
            with quiet():
                quant_pre_process(str(source), str(prepared))
                quantize_static(
                    prepared,
                    quantised,
                    _Calibration(images),
                    quant_format=QuantFormat.QDQ,
                    per_channel=True,
                    activation_type=QuantType.QUInt8,
                    weight_type=QuantType.QInt8,
                )
        except Exception as error:  # the quantiser may raise anything for a network
            raise UserError(f"the network cannot be quantised: {reason_of(error)}") from error
        files.write(target, lambda temporary: shutil.copyfile(quantised, temporary))


class _Calibration:
    """Reader of the images for the calibration, part by part."""

    def __init__(self, images: Tensor) -> None:
        self._parts = iter(torch.split(images, _PART))

    def get_next(self) -> dict[str, object] | None:
        """Return the inputs of the next pass; None after the last."""
        part = next(self._parts, None)
        return None if part is None else {"images": part.numpy()}


def _checked(found: Int8Comparison) -> str:
    """Return the comparison as sentences of the model card."""
    median, low, high = found.time_ratio
    before, after = found.float32.accuracy, found.int8.accuracy
    return (
        f"Calibrated on {found.calibration_images} training images. Measured on "
        f"{found.test_images:,} test images: accuracy {after:.2f} %, in float32 {before:.2f} %. "
        f"Time of one image on one thread of {environment.hardware()['processor']}: {median:.2f} "
        f"({low:.2f} to {high:.2f}) of the float32 file's; {found.size_ratio:.2f} of its size."
    )
