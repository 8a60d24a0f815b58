"""Networks of Hugging Face transformers for any task, by name or local folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from diswot.errors import UserError
from diswot.models.preprocessing import FETCHING, Aliases, InputConfig
from diswot.utils.optional_imports import imported, one_line_errors

_BYTES = 1 / 255


class Classifier(nn.Module):
    """A network of transformers whose forward pass returns only the logits.

    They are B x K, or B x K x h x w of a network for segmentation.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Map images B x 3 x H x W to the logits."""
        logits: Tensor = self.model(pixel_values=images).logits
        return logits


def input_config(name: str, pretrained: bool) -> InputConfig:
    """Read the input configuration from the network's and, if pretrained, its image processor's."""
    config = _config(name)
    channels = getattr(config, "num_channels", 3)
    if channels != 3:
        raise UserError(f"hf:{name} takes {channels} channels, and images have 3")
    detects = _detects(config)  # images of any size
    size = None if detects else _side(getattr(config, "image_size", None))
    if not pretrained:
        return InputConfig(img_size=size)
    processor = _processor(name)
    if not detects:
        size = size or _side(processor.get("crop_size")) or _side(processor.get("size"))
    return InputConfig(config.num_labels, size, *_normalisation(name, processor), _classes(config))


def build(name: str, classes: int, size: int | None, pretrained: bool) -> nn.Module:
    """Build a network with a head for K classes, which is new if the weights have another K."""
    config = _config(name)
    (auto, adapted), trained = _auto_class(config), config.num_labels
    if not pretrained:
        config.num_labels = classes
        if size is not None and hasattr(config, "image_size") and not _detects(config):
            config.image_size = size
        if getattr(config, "use_pretrained_backbone", False):
            config.use_pretrained_backbone = False
        with one_line_errors(f"hf:{name}", "cannot be made"):
            return adapted(auto.from_config(config))
    options = {"num_labels": classes, "ignore_mismatched_sizes": True, "use_safetensors": True}
    with one_line_errors(f"hf:{name}", FETCHING):
        model, info = auto.from_pretrained(name, output_loading_info=True, **options)
    lacking = sorted(info["missing_keys"])
    if classes == trained and (lacking or info["mismatched_keys"]):
        what = "detector" if _detects(config) else "classifier"
        raise UserError(f"the weights of hf:{name} are not a {what}'s: they lack {lacking}")
    return adapted(model)


def _config(name: str) -> Any:
    transformers = imported("transformers", "hf")
    if name[0] in "./~" and not Path(name).is_dir():
        raise UserError(f"no such folder: {name}")
    with one_line_errors(f"hf:{name}", "is not here, and cannot be fetched"):
        return transformers.AutoConfig.from_pretrained(name)


def _auto_class(config: Any) -> tuple[Any, Callable[[nn.Module], nn.Module]]:
    """Return the class of transformers for the task of a network, and its adapter."""
    transformers = imported("transformers", "hf")
    if _detects(config):
        from diswot.models.huggingface_detector import HuggingFaceDetector  # loads torchvision

        return transformers.AutoModelForObjectDetection, HuggingFaceDetector
    made_for = getattr(config, "architectures", None) or ()
    if any(name.endswith("ForSemanticSegmentation") for name in made_for):
        return transformers.AutoModelForSemanticSegmentation, Classifier
    return transformers.AutoModelForImageClassification, Classifier


def _detects(config: Any) -> bool:
    """Say whether a configuration is that of a detector."""
    auto = imported("transformers.models.auto.modeling_auto", "hf")
    return type(config) in auto.MODEL_FOR_OBJECT_DETECTION_MAPPING


def _classes(config: Any) -> tuple[Aliases, ...] | None:
    """Return the names of the classes; None where they are only numbered."""
    names = [str(config.id2label.get(place, "")) for place in range(config.num_labels)]
    if any(name in ("", f"LABEL_{place}") for place, name in enumerate(names)):
        return None
    return tuple((name, *name.split(", ")) for name in names)


def _processor(name: str) -> dict[str, Any]:
    """Return the settings of the image processor; an empty dict if there is none."""
    module = imported("transformers.image_processing_base", "hf")
    try:
        found: dict[str, Any] = module.ImageProcessingMixin.get_image_processor_dict(name)[0]
    except OSError:
        return {}
    return found


def _normalisation(
    name: str, processor: dict[str, Any]
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    if not processor.get("do_normalize", True) or "image_mean" not in processor:
        return None, None
    if (
        not processor.get("do_rescale", True)
        or abs(processor.get("rescale_factor", _BYTES) - _BYTES) > 1e-6
    ):
        raise UserError(f"the image processor of hf:{name} does not scale bytes to 0 to 1")
    return tuple(processor["image_mean"]), tuple(processor["image_std"])


def _side(size: Any) -> int | None:
    """Return the height in pixels from a number, a pair or a dict."""
    if isinstance(size, dict):
        size = size.get("height", size.get("shortest_edge"))
    if isinstance(size, list | tuple):
        size = size[0] if size else None
    return int(size) if size else None
