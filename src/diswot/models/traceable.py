"""Networks as their layers are traced: detectors give the maps of their last layers, not boxes."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from diswot.utils.compat import tree_leaves

_LAST = ("cls_logits", "bbox_reg", "bbox_ctrness")


def traceable(model: nn.Module) -> nn.Module:
    """Give a detector of torchvision a forward pass that selects no boxes, in place."""
    detector: Any = model
    head: Any = getattr(model, "head", None)
    if hasattr(model, "rpn") and hasattr(model, "roi_heads"):
        detector.forward = lambda images: _proposal_maps(detector, images)
    elif hasattr(head, "classification_head") and hasattr(head, "regression_head"):
        detector.forward = lambda images: _last_maps(detector, images)
    return model


def traced_outputs(output: object) -> list[Tensor]:
    """Return the outputs whose shapes stay: the logits, or all last maps of a detector."""
    tensors = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
    return tensors if isinstance(output, list) else tensors[:1]


def _levels(detector: Any, images: Tensor) -> list[Tensor]:
    """Return the maps of the backbone or its pyramid, the finest first."""
    maps = detector.backbone(images)
    return [maps] if isinstance(maps, Tensor) else list(maps.values())


def _proposal_maps(detector: Any, images: Tensor) -> list[Tensor]:
    """Return the outputs of the proposal head, and those of the other heads for one proposal.

    The proposal is the whole image at the finest level.
    """
    levels, heads = _levels(detector, images), detector.roi_heads
    found = [output for outputs in detector.rpn.head(levels) for output in outputs]
    for kind in ("box", "mask", "keypoint"):
        if getattr(heads, f"{kind}_predictor", None) is not None:
            pool, head, predictor = (
                getattr(heads, f"{kind}_{part}") for part in ("roi_pool", "head", "predictor")
            )
            outputs = predictor(head(adaptive_avg_pool2d(levels[0], pool.output_size)))
            found += [outputs] if isinstance(outputs, Tensor) else outputs
    return found


def _last_maps(detector: Any, images: Tensor) -> list[Tensor]:
    """Return the outputs of the last layers of both heads, for each level."""
    levels = _levels(detector, images)
    found: list[Tensor] = []
    for branch in (detector.head.classification_head, detector.head.regression_head):
        if hasattr(branch, "module_list"):  # of SSD: a last layer a level
            found += [layer(level) for layer, level in zip(branch.module_list, levels, strict=True)]
            continue
        last = [getattr(branch, name) for name in _LAST if hasattr(branch, name)]
        features = map(branch.conv, levels)
        found += [layer(feature) for feature in features for layer in last]
    return found
