"""Networks as their layers are traced: detectors give the maps of their last layers, not boxes."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from diswot.errors import UserError
from diswot.utils.compat import tree_leaves

_LAST = ("cls_logits", "bbox_reg", "bbox_ctrness")


def traceable(model: nn.Module) -> nn.Module:
    """Give a detector of torchvision of one stage a forward pass that selects no boxes, in place.

    Raises:
        UserError: It is a detector of two stages.
    """
    if hasattr(model, "rpn") and hasattr(model, "roi_heads"):
        raise UserError(
            "the layers of detectors of two stages cannot be traced; one-stage ones can"
        )
    head: Any = getattr(model, "head", None)
    if hasattr(head, "classification_head") and hasattr(head, "regression_head"):
        detector: Any = model
        detector.forward = lambda images: _last_maps(detector, images)
    return model


def traced_outputs(output: object) -> list[Tensor]:
    """Return the outputs whose shapes stay: the logits, or all last maps of a detector."""
    tensors = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
    return tensors if isinstance(output, list) else tensors[:1]


def _last_maps(detector: Any, images: Tensor) -> list[Tensor]:
    """Return the outputs of the last layers of both heads, for each level."""
    maps = detector.backbone(images)
    levels = [maps] if isinstance(maps, Tensor) else list(maps.values())
    found: list[Tensor] = []
    for branch in (detector.head.classification_head, detector.head.regression_head):
        if hasattr(branch, "module_list"):  # of SSD: a last layer a level
            found += [layer(level) for layer, level in zip(branch.module_list, levels, strict=True)]
            continue
        last = [branch._modules[name] for name in _LAST if name in branch._modules]
        features = map(branch.conv, levels)
        found += [layer(feature) for feature in features for layer in last]
    return found
