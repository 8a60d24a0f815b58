"""Networks of segmentation-models-pytorch by name: a decoder, a hyphen, and an encoder.

`fpn-resnet18` has an encoder of that library, `fpn-tu-mobilenetv3_small_050` one of timm. The
library is optional.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from diswot.errors import UserError, unknown
from diswot.models.preprocessing import InputConfig
from diswot.utils.optional_imports import imported, one_line_errors

TIMM = "tu-"  # prefix of encoders of timm


def library() -> Any:
    """Import the library, or raise a `UserError` if it is not installed."""
    return imported("segmentation_models_pytorch", "smp", "segmentation")


def list_decoders() -> list[str]:
    """List the decoders."""
    return list(library().MODEL_ARCHITECTURES_MAPPING)


def list_encoders() -> list[str]:
    """List the encoders of the library itself, without those of timm."""
    return list(library().encoders.get_encoder_names())


def _split(name: str) -> tuple[str, str]:
    """Return the decoder and the encoder of a name; a `UserError` if one of them is unknown."""
    decoder, _, encoder = name.partition("-")
    if decoder not in (known := list_decoders()):
        raise unknown("decoder of smp", decoder, known)
    if not encoder.startswith(TIMM) and encoder not in (known := list_encoders()):
        raise unknown("encoder of smp", encoder, known)
    return decoder, encoder


def input_config(name: str, pretrained: bool) -> InputConfig:
    """Check a name; a network takes any classes and normalisation.

    Raises:
        UserError: The name is unknown, or weights are wanted, which the library has for encoders
            alone.
    """
    _split(name)
    if pretrained:
        raise UserError(f"smp:{name} has weights for its encoder alone; give --teacher-weights")
    return InputConfig()


def build(name: str, classes: int, size: int | None, pretrained: bool = False) -> nn.Module:
    """Build a network of a decoder, a hyphen and an encoder for K classes, with random weights.

    The height of the images, in pixels, is None if it is not known.

    Raises:
        UserError: The encoder does not fit the decoder, or the height is no multiple of the
            network's stride.
    """
    decoder, encoder = _split(name)
    with one_line_errors(f"smp:{name}", "cannot be made"):
        model: nn.Module = library().create_model(decoder, encoder, None, classes=classes)
    stride = getattr(getattr(model, "encoder", None), "output_stride", 1)
    if size is not None and size % stride and getattr(model, "requires_divisible_input_shape", 0):
        raise UserError(
            f"smp:{name} takes images whose height and width are multiples of {stride}, not "
            f"{size} pixels high; see --image-size"
        )
    return model
