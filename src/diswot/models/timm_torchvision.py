"""Networks of timm and torchvision, by name: classifiers, and torchvision's dense networks."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn

from diswot.errors import UserError, unknown
from diswot.models.preprocessing import FETCHING, Aliases, InputConfig
from diswot.utils.optional_imports import one_line_errors

_OLD: dict[str, Any] = {"aux_logits": False, "init_weights": True}
_AUXILIARY = ("googlenet", "inception_v3")  # networks with a second classifier in training
_MORE_THAN_BOXES = ("maskrcnn", "keypointrcnn")  # detectors that need masks or points, too


def timm_input_config(name: str, pretrained: bool) -> InputConfig:
    """Read the input configuration of timm's weights; without weights, only a fixed size."""
    cfg = _timm_config(name)
    if cfg.input_size[0] != 3:
        raise UserError(f"timm:{name} takes {cfg.input_size[0]} channels, and images have 3")
    size = cfg.input_size[-1]
    if not pretrained:
        return InputConfig(img_size=size if cfg.fixed_input_size else None)
    if not cfg.has_weights:
        raise UserError(f"timm:{name} has no pretrained weights in timm")
    return InputConfig(cfg.num_classes, size, tuple(cfg.mean), tuple(cfg.std), _timm_classes(cfg))


def _timm_classes(cfg: Any) -> tuple[Aliases, ...] | None:
    """Return the names of the classes of ImageNet, WordNet's numbers first; None for others."""
    from timm import data

    known: Any = data
    subset = known.infer_imagenet_subset(cfg.to_dict())
    if subset is None:
        return None
    known = known.ImageNetInfo(subset)
    named = zip(known.label_names(), known.label_descriptions(), strict=True)
    return tuple((number, *words.split(", ")) for number, words in named)


def timm_build(name: str, classes: int, size: int | None, pretrained: bool) -> nn.Module:
    """Build a network; set the image size if it is part of the network, as in transformers."""
    import timm

    own = timm_input_config(name, False).img_size
    options: dict[str, Any] = {"num_classes": classes}
    failure = "cannot be made"
    if size is not None and own not in (None, size):
        options["img_size"] = size
        failure = f"is for images of {own} pixels, not {size}"
    with one_line_errors(f"timm:{name}", FETCHING if pretrained else failure):
        model: nn.Module = timm.create_model(name, pretrained=pretrained, **options)
        return model


def _timm_config(name: str) -> Any:
    """Return timm's configuration of a network, which timm itself has.

    Raises:
        UserError: timm has no network of this name, or no weights of this tag.
    """
    import timm

    if not timm.is_model(name):
        raise unknown("network of timm", name, timm.list_models())
    with one_line_errors(f"timm:{name}", "cannot be made"):
        return timm.get_pretrained_cfg(name)


def torchvision_input_config(name: str, pretrained: bool) -> InputConfig:
    """Read the input configuration of torchvision's default weights; else only a fixed size."""
    from torchvision import models

    detects = _kind(name) == "detection"
    if not pretrained:
        return InputConfig(img_size=224 if _sized(name) else None)
    weights = models.get_model_weights(name).DEFAULT
    names = tuple((name,) for name in weights.meta["categories"])
    if detects:  # the first name is that of the background
        return InputConfig(len(names) - 1, None, *_detector_normalisation(name), names[1:])
    preset = weights.transforms()
    mean, std = tuple(map(float, preset.mean)), tuple(map(float, preset.std))
    if name in _AUXILIARY:  # their preset is for a network that rescales its images itself
        mean = std = (0.5,) * 3
    size = int(preset.crop_size[0]) if hasattr(preset, "crop_size") else None  # for masks
    return InputConfig(len(names), size, mean, std, names)


def _detector_normalisation(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and deviation of the images of a detector, which its transform has."""
    from torchvision import models

    with torch.device("meta"):
        transform: Any = models.get_model(name, weights_backbone=None).transform
    return tuple(transform.image_mean), tuple(transform.image_std)


def torchvision_build(name: str, classes: int, size: int | None, pretrained: bool) -> nn.Module:
    """Build a network; it takes all pretrained weights whose shapes are those of the network."""
    from torchvision import models

    kind = _kind(name)
    outputs = classes + (kind == "detection")
    options = dict(_OLD) if name in _AUXILIARY else {}
    if kind != "classification":
        options["weights_backbone"] = None
    if (key := _sized(name)) and size is not None:
        options[key] = size if key == "image_size" else (size, size)
    with one_line_errors(f"torchvision:{name}", "cannot be made"), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model: nn.Module = models.get_model(name, num_classes=outputs, **options)
    if pretrained:
        with one_line_errors(f"torchvision:{name}", FETCHING):
            given = models.get_model(name, weights="DEFAULT").state_dict()
        trained = len(models.get_model_weights(name).DEFAULT.meta["categories"])
        _take(model, given, f"torchvision:{name}", outputs / trained)
    if kind == "detection":
        from diswot.models.detectors import at_own_size  # loads torchvision

        return at_own_size(model)
    return model


def _take(model: nn.Module, given: dict[str, Any], name: str, ratio: float) -> None:
    """Load what fits of the weights of another network, which has other outputs by a ratio.

    Raises:
        UserError: Another layer than one of the outputs differs.
    """
    own = model.state_dict()
    fitting = {k: v for k, v in given.items() if k in own and v.shape == own[k].shape}
    for key in own.keys() - fitting.keys():
        shape, wanted = given[key].shape if key in given else (), own[key].shape
        counts = key.endswith("num_batches_tracked")  # frozen batch norms have none
        if not counts and not (
            shape and shape[1:] == wanted[1:] and round(shape[0] * ratio) == wanted[0]
        ):
            raise UserError(f"{name} takes other images with its weights: {key} differs")
    model.load_state_dict(fitting, strict=False)


def _kind(name: str) -> str:
    """Return the task of a network of torchvision.

    Raises:
        UserError: There is no network of this name, or it needs masks or points of objects.
    """
    from torchvision import models

    modules = {
        "classification": models,
        "segmentation": models.segmentation,
        "detection": models.detection,
    }
    names = {each: kind for kind, module in modules.items() for each in models.list_models(module)}
    names = {each: kind for each, kind in names.items() if not each.startswith(_MORE_THAN_BOXES)}
    if name not in names:
        raise unknown("network of torchvision", name, names)
    return names[name]


def _sized(name: str) -> str:
    """Return the argument that sets the image size, if it is part of the network; else nothing."""
    return {"vit": "image_size", "maxvit": "input_size"}.get(name.partition("_")[0], "")
