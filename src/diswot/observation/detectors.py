"""Runs detectors that follow torchvision's convention, unchanged, for their losses and matches.

Such a network takes a list of images and a list of dicts with boxes and labels. In training mode it
returns a dict of losses, in evaluation mode boxes. One pass shows the losses, and which class the
detector's own matcher gives to each of its anchors, points or proposals.

Letters: B images, M boxes an image, K classes, A anchors (or points, or proposals) of all images.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from diswot.errors import UserError
from diswot.observation.boxes import BACKGROUND, box_dicts
from diswot.observation.dense_head import RanConvolution
from diswot.observation.modes import (
    hooked,
    measuring,
    replaced,
    restored_modes,
    set_modes,
    unwrapped,
)
from diswot.observation.rows import IGNORED

# Methods by which the parts of torchvision's detectors are known, also in other libraries' copies
_PROPOSES = "filter_proposals"  # of a RegionProposalNetwork
_SAMPLES = "select_training_samples"  # of RoIHeads
_LOSS = "compute_loss"  # of SSD, RetinaNetHead and FCOSHead, which are handed `matched_idxs`
_HEAD = "classification_head"  # of their heads


@dataclass(frozen=True)
class Matches:
    """The anchors, points or proposals of a pass, image by image, as the detector matched them.

    Attributes:
        logits: A x (K + 1); of heads with a sigmoid a class, the first output is never used.
        classes: Class of each, A: from 1 to K, `BACKGROUND`, or `IGNORED` if it has no loss.
        boxes: Image, x1, y1, x2 and y2 of each, A x 5, in pixels of the images that the backbone
            takes.
        sigmoid: Whether each class has a probability of its own.
        convolutions: The calls of the convolutions that end the head, a level each, from the first
            level; none if they are not found.
        linear: The linear layer that gives the logits, and its inputs, A x D; None without one.
    """

    logits: Tensor
    classes: Tensor
    boxes: Tensor
    sigmoid: bool
    convolutions: tuple[RanConvolution, ...] = ()
    linear: tuple[nn.Linear, Tensor] | None = None


def run_detector(model: nn.Module, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Run a detector once and return its own losses by name, in any mode of its layers.

    Only the detector itself and torchvision's parts that propose and sample boxes are in training
    mode during the call. Normalisation and dropout stay in their mode.

    Args:
        model: Detector, perhaps compiled or parallel over processes.
        images: B x 3 x H x W.
        targets: Boxes, B x M x 6, as `observation.boxes` describes them.

    Raises:
        UserError: The model returns no losses.
    """
    parts = [m for m in model.modules() if hasattr(m, _PROPOSES) or hasattr(m, _SAMPLES)]
    parts.append(unwrapped(model))
    with restored_modes(parts):
        set_modes(parts, [True] * len(parts))
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

    Arguments and errors are those of `run_detector`.

    Returns:
        The losses by name. The matches are None if the detector has no method of torchvision's that
        is handed them.
    """
    found: list[Matches] = []
    with _matching(unwrapped(model), found):
        losses = run_detector(model, images, targets)
    return losses, found[-1] if found else None


class ImagesAlone(nn.Module):
    """A detector as a function of images alone, without boxes, losses and suppression.

    Its output is what the head says about classes at all positions of all levels, B x ...: the
    class logits of a one-stage detector, the objectness of a two-stage one. Of a detector with a
    backbone and another head it is the maps that the backbone returns. Of a detector without
    `backbone`, in evaluation mode, it is the sum of the scores of an image's boxes.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.detector = model

    def enter(self, images: Tensor) -> Tensor:
        """Return images as the backbone takes them: resized, normalised and padded."""
        transform = _part(unwrapped(self.detector), "transform")
        if transform is None:
            return images
        with measuring(transform):  # in training it may draw a size
            entering: Tensor = transform(list(images))[0].tensors
        return entering

    def forward(self, images: Tensor) -> Tensor:
        """Return the output for images that `enter` returns."""
        detector = unwrapped(self.detector)
        backbone, proposer = _part(detector, "backbone"), _part(detector, "rpn")
        if backbone is None:
            return torch.stack([each["scores"].sum() for each in self.detector(list(images))])
        levels = backbone(images)
        maps = list(levels.values()) if isinstance(levels, Mapping) else [levels]
        head = _part(detector if proposer is None else proposer, "head")
        given = maps if head is None else head(maps)
        given = [given["cls_logits"]] if isinstance(given, Mapping) else given
        given = given[0] if isinstance(given, tuple) else given
        return torch.cat([each.flatten(1) for each in given], 1)


def _part(module: nn.Module, name: str) -> nn.Module | None:
    found = getattr(module, name, None)
    return found if isinstance(found, nn.Module) else None


def _matching(model: nn.Module, found: list[Matches]) -> AbstractContextManager[None]:
    """Record what the detector's loss is handed, in passes inside the block."""
    samplers = [module for module in model.modules() if hasattr(module, _SAMPLES)]
    owners = [module for module in model.modules() if _is_handed_matches(module)]
    if samplers:
        return _proposal_matches(samplers[0], found)
    if owners:
        return _anchor_matches(owners[0], found, sigmoid=owners[0] is not model)
    return nullcontext()


def _is_handed_matches(module: nn.Module) -> bool:
    """Say whether the loss of a one-stage detector, or of its head, takes the matches."""
    method = getattr(module, _LOSS, None)
    wanted = ["targets", "head_outputs", "anchors", "matched_idxs"]
    return method is not None and list(inspect.signature(method).parameters) == wanted


def _shadowed(
    module: nn.Module,
    name: str,
    *,
    before: Callable[..., None] | None = None,
    after: Callable[[Any], None] | None = None,
) -> AbstractContextManager[None]:
    """Call a function before or after a method of one module, for the time of a block."""
    method = getattr(module, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        if before is not None:
            before(*args, **kwargs)
        result = method(*args, **kwargs)
        if after is not None:
            after(result)
        return result

    return replaced({module: call}, name)


@contextmanager
def _anchor_matches(owner: nn.Module, found: list[Matches], *, sigmoid: bool) -> Iterator[None]:
    """Record the matches of a one-stage detector, whose loss, or whose head's loss, is handed them.

    If `sigmoid`, each class has a probability of its own. The loss of a softmax is that of the
    detector itself, as in SSD.
    """
    ran: list[RanConvolution] = []

    def keep(module: nn.Conv2d, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ran.append(RanConvolution("", module, inputs[0], output))

    def record(targets: Any, outputs: Any, anchors: Any, matched_idxs: Any) -> None:
        classes = torch.cat(list(map(_classes, targets, matched_idxs)))
        logits = outputs["cls_logits"].flatten(0, 1)
        found.append(Matches(logits, classes, _numbered(anchors), sigmoid, tuple(ran)))
        ran.clear()

    with hooked(_last_convolutions(owner), keep), _shadowed(owner, _LOSS, before=record):
        yield


def _classes(target: Mapping[str, Tensor], matched: Tensor) -> Tensor:
    """Return the class of each anchor of an image: -1 is the background, -2 has no loss."""
    found = torch.where(matched == -1, BACKGROUND, IGNORED)
    found[matched >= 0] = target["labels"][matched[matched >= 0]]
    return found


def _last_convolutions(owner: nn.Module) -> list[nn.Conv2d]:
    """Return the last convolution of the head, or of each of its parts for a level of its own."""
    named = dict(owner.named_modules())
    heads = [head for name, head in named.items() if name.rpartition(".")[2] == _HEAD]
    if not heads:
        return []
    lists = [part for part in heads[0].children() if isinstance(part, nn.ModuleList)]
    parts = list(lists[0]) if lists else heads[:1]
    found = [[m for m in part.modules() if isinstance(m, nn.Conv2d)] for part in parts]
    return [convolutions[-1] for convolutions in found if convolutions]


@contextmanager
def _proposal_matches(heads: nn.Module, found: list[Matches]) -> Iterator[None]:
    """Record the proposals that the RoIHeads of a two-stage detector sample, and their logits."""
    sampled: list[tuple[list[Tensor], list[Tensor]]] = []
    ran: list[tuple[nn.Linear, Tensor, Tensor]] = []

    def sample(result: tuple[list[Tensor], Any, list[Tensor], Any]) -> None:
        sampled.append((result[0], result[2]))

    def keep(module: nn.Linear, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ran.append((module, inputs[0], output))

    def record(module: nn.Module, inputs: object, output: tuple[Tensor, Tensor]) -> None:
        proposals, labels = sampled[-1]
        linear = [(m, entering) for m, entering, given in ran if given is output[0]]
        classes, boxes = torch.cat(labels), _numbered(proposals)
        found.append(Matches(output[0], classes, boxes, False, linear=next(iter(linear), None)))
        ran.clear()

    predictor = heads.get_submodule("box_predictor")
    layers = [module for module in predictor.modules() if isinstance(module, nn.Linear)]
    with (
        hooked(layers, keep),
        hooked([predictor], record),
        _shadowed(heads, _SAMPLES, after=sample),
    ):
        yield


def _numbered(boxes: list[Tensor]) -> Tensor:
    """Return the boxes of all images, each after the number of its image, A x 5."""
    numbers = [torch.full_like(each[:, :1], image) for image, each in enumerate(boxes)]
    return torch.cat([torch.cat(pair, 1) for pair in zip(numbers, boxes, strict=True)])
