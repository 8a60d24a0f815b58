"""Runs detectors that follow torchvision's convention, unchanged, for their losses and matches.

Such a network takes a list of images and a list of dicts with boxes and labels. In training mode it
returns a dict of losses, in evaluation mode boxes. One pass shows the losses, and which class the
detector's own matcher gives to each of its anchors, points or proposals.

Letters: B images, M boxes an image, K classes, A anchors (or points, or proposals) of all images.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from diswot.errors import UserError
from diswot.observation.boxes import BACKGROUND, box_dicts
from diswot.observation.rows import IGNORED

# Methods by which the parts of torchvision's detectors are known, also in other libraries' copies
_PROPOSES = "filter_proposals"  # of a RegionProposalNetwork
_SAMPLES = "select_training_samples"  # of RoIHeads
_LOSS = "compute_loss"  # of SSD, RetinaNetHead and FCOSHead, which are handed `matched_idxs`


@dataclass(frozen=True)
class Matches:
    """The anchors, points or proposals of a pass, image by image, as the detector matched them.

    Attributes:
        logits: A x (K + 1); of heads with a sigmoid a class, the first output is never used.
        classes: Class of each, A: from 1 to K, `BACKGROUND`, or `IGNORED` if it has no loss.
        boxes: Image, x1, y1, x2 and y2 of each, A x 5, in pixels of the images that the backbone
            takes.
        sigmoid: Whether each class has a probability of its own.
        count: Number of anchors or points an image; 0 for proposals, whose number differs.
    """

    logits: Tensor
    classes: Tensor
    boxes: Tensor
    sigmoid: bool
    count: int


def run_detector(model: nn.Module, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Run a detector once and return its own losses by name, whatever mode its layers are in.

    Only the detector itself and torchvision's parts that propose and sample boxes are in training
    mode during the call. Normalisation and dropout stay in their mode.

    Args:
        model: Detector, perhaps compiled or parallel over processes.
        images: B x 3 x H x W.
        targets: Boxes, B x M x 6, as `observation.boxes` describes them.

    Raises:
        UserError: The model returns no losses.
    """
    with _giving_losses(model):
        losses = model(list(images), box_dicts(targets))
    if not isinstance(losses, Mapping) or not losses:
        raise UserError(
            "a detector must return a dict of losses in training mode, as torchvision's do, not a "
            f"{type(losses).__name__}"
        )
    return dict(losses)


def run_matching(
    model: nn.Module, images: Tensor, targets: Tensor
) -> tuple[dict[str, Tensor], Matches | None]:
    """Run a detector once and return its losses, and what its matcher did.

    Args:
        model: As in `run_detector`.
        images: As in `run_detector`.
        targets: As in `run_detector`.

    Returns:
        The losses by name. The matches are None if the detector has no method of torchvision's that
        is handed them.

    Raises:
        UserError: As in `run_detector`.
    """
    with _matching(detector(model)) as found:
        losses = run_detector(model, images, targets)
    return losses, found[-1] if found else None


def detector(model: nn.Module) -> nn.Module:
    """Return the detector inside a model that is compiled or parallel over processes."""
    for name in ("module", "_orig_mod"):
        inner = model._modules.get(name)
        if inner is not None:
            return detector(inner)
    return model


@contextmanager
def _giving_losses(model: nn.Module) -> Iterator[None]:
    """Put the detector, and its parts that propose and sample boxes, into training mode."""
    parts = [m for m in model.modules() if hasattr(m, _PROPOSES) or hasattr(m, _SAMPLES)]
    parts = [detector(model), *parts]
    modes = [part.training for part in parts]
    try:
        for part in parts:
            vars(part)["training"] = True
        yield
    finally:
        for part, mode in zip(parts, modes, strict=True):
            vars(part)["training"] = mode


@contextmanager
def _matching(model: nn.Module) -> Iterator[list[Matches]]:
    """Record what the detector's loss is handed, in passes inside the block."""
    found: list[Matches] = []
    samplers = [module for module in model.modules() if hasattr(module, _SAMPLES)]
    owners = [module for module in model.modules() if _is_handed_matches(module)]
    with ExitStack() as stack:
        if samplers:
            stack.enter_context(_proposal_matches(samplers[0], found))
        elif owners:
            sigmoid = owners[0] is not model  # SSD's own loss is that of a softmax

            def record(targets: Any, outputs: Any, anchors: Any, matched_idxs: Any) -> None:
                found.append(_anchor_matches(targets, outputs, anchors, matched_idxs, sigmoid))

            stack.enter_context(_shadowed(owners[0], _LOSS, before=record))
        yield found


def _is_handed_matches(module: nn.Module) -> bool:
    """Say whether the loss of a one-stage detector, or of its head, takes the matches."""
    method = getattr(module, _LOSS, None)
    wanted = ["targets", "head_outputs", "anchors", "matched_idxs"]
    return method is not None and list(inspect.signature(method).parameters) == wanted


@contextmanager
def _shadowed(
    module: nn.Module,
    name: str,
    *,
    before: Callable[..., None] | None = None,
    after: Callable[[Any], None] | None = None,
) -> Iterator[None]:
    """Call a function before or after a method of one module, for the time of the block."""
    own = vars(module).get(name)
    method = getattr(module, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        if before is not None:
            before(*args, **kwargs)
        result = method(*args, **kwargs)
        if after is not None:
            after(result)
        return result

    vars(module)[name] = call
    try:
        yield
    finally:
        del vars(module)[name]
        if own is not None:
            vars(module)[name] = own


def _anchor_matches(
    targets: list[dict[str, Tensor]],
    outputs: dict[str, Tensor],
    anchors: list[Tensor],
    matched: list[Tensor],
    sigmoid: bool,
) -> Matches:
    """Return the matches of a one-stage detector: -1 is the background, -2 has no loss."""
    classes = []
    for target, indices in zip(targets, matched, strict=True):
        found = torch.where(indices == -1, BACKGROUND, IGNORED)
        found[indices >= 0] = target["labels"][indices[indices >= 0]]
        classes.append(found)
    logits = outputs["cls_logits"]
    return Matches(
        logits.flatten(0, 1), torch.cat(classes), _numbered(anchors), sigmoid, logits.shape[1]
    )


@contextmanager
def _proposal_matches(heads: nn.Module, found: list[Matches]) -> Iterator[None]:
    """Record the proposals that a two-stage detector samples, and their logits."""
    sampled: list[tuple[list[Tensor], list[Tensor]]] = []

    def keep(result: tuple[list[Tensor], Any, list[Tensor], Any]) -> None:
        sampled.append((result[0], result[2]))

    def record(module: nn.Module, inputs: object, output: tuple[Tensor, Tensor]) -> None:
        proposals, labels = sampled[-1]
        found.append(Matches(output[0], torch.cat(labels), _numbered(proposals), False, 0))

    handle = heads.get_submodule("box_predictor").register_forward_hook(record)
    try:
        with _shadowed(heads, _SAMPLES, after=keep):
            yield
    finally:
        handle.remove()


def _numbered(boxes: list[Tensor]) -> Tensor:
    """Return the boxes of all images, each after the number of its image, A x 5."""
    numbers = [torch.full_like(each[:, :1], image) for image, each in enumerate(boxes)]
    return torch.cat([torch.cat(pair, 1) for pair in zip(numbers, boxes, strict=True)])
