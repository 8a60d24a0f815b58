"""Which layer of a teacher each layer of a student corresponds to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from diswot.models.weighted_layers import (
    FREE,
    LINEAR,
    SCALE,
    SQUEEZE,
    LayerBlock,
    LayerStage,
    Outline,
    WeightedLayer,
)

LayerList = Sequence[WeightedLayer]


class LayerPair(NamedTuple):
    """A layer of the student, and the teacher's layer that corresponds to it, if there is one."""

    student: WeightedLayer
    teacher: WeightedLayer | None


def corresponding(teacher: Outline, student: Outline) -> list[LayerPair]:
    """Pair all layers of a student with layers of a teacher.

    Stages correspond by their number. Block i of m corresponds to block round(i (n - 1) / (m - 1))
    of n. If the kinds of layers differ on its main path, the nearest block that has the same kinds
    is taken. In the heads of detectors convolutions correspond as blocks do, and levels of the
    pyramid from the coarsest on.
    """
    pairs = list(_pair(teacher.stem, student.stem))
    for number, stage in enumerate(student.stages):
        other = teacher.stages[number] if number < len(teacher.stages) else LayerStage([], [])
        pairs += _pair(other.before, stage.before)
        for place, block in enumerate(stage.blocks):
            source = _corresponding_block(other.blocks, stage.blocks, place)
            main, side = (source.main, source.shortcut) if source else ([], [])
            pairs += _pair(main, block.main)
            pairs += _pair(side, block.shortcut)
    pairs += _pair_heads(teacher.head, student.head)
    return _with_classifier(teacher.layers, pairs)


def _corresponding_block(
    blocks: Sequence[LayerBlock], students: Sequence[LayerBlock], place: int
) -> LayerBlock | None:
    """Return the teacher's block for a block of the student's stage.

    A first block that changes the shape corresponds to a first block alone.
    """
    if not blocks:
        return None
    target = at_even_depth(place, len(students), len(blocks))
    numbers = range(len(blocks))
    if place == 0:
        numbers = range(1)
    elif blocks[0].changes_shape:
        numbers = range(1, len(blocks))
    fitting = [number for number in numbers if blocks[number].form == students[place].form]
    return blocks[min(fitting, key=lambda n: abs(n - target))] if fitting else None


def _pair(teacher: LayerList, student: LayerList) -> Iterator[LayerPair]:
    """Pair the layers of one place: kind by kind in order, or by name if their numbers differ."""
    taken: dict[WeightedLayer, WeightedLayer] = {}
    for kind, ours, others in _by_kind(teacher, student):
        if kind != FREE and len(ours) == len(others):
            taken |= dict(zip(ours, others, strict=True))
        elif kind in (FREE, SCALE, SQUEEZE, LINEAR):
            taken |= _by_name(others, ours)
    return (LayerPair(layer, taken.get(layer)) for layer in student)


def _by_kind(teacher: LayerList, student: LayerList) -> Iterator[tuple[str, LayerList, LayerList]]:
    """Yield each kind of the student's layers, those layers, and the teacher's of the kind."""
    for kind in dict.fromkeys(layer.kind for layer in student):
        ours, others = ([x for x in layers if x.kind == kind] for layers in (student, teacher))
        yield kind, ours, others


# Parts of torchvision's detectors, by what their layers' paths contain, and whether their layers
# are counted from the last; the layers of other parts correspond by their relative place.
_PARTS: Mapping[str, bool] = {
    "fpn.inner_blocks.": True,
    "fpn.layer_blocks.": True,
    "fpn.extra_blocks.": False,
    "classification_head.conv.": False,
    "classification_head.cls_logits": False,
    "regression_head.conv.": False,
    "regression_head.bbox_reg": False,
    "regression_head.bbox_ctrness": False,
}


def _pair_heads(teacher: LayerList, student: LayerList) -> Iterator[LayerPair]:
    """Pair the layers after the last block: part by part in detectors, else as in any place."""
    others, ours = _by_part(teacher), _by_part(student)
    for part, layers in ours.items():
        given = others.get(part, [])
        if part:
            yield from _pair_part(given, layers, from_last=_PARTS[part])
        else:
            yield from _pair(given, layers)


def _by_part(layers: LayerList) -> dict[str, list[WeightedLayer]]:
    found: dict[str, list[WeightedLayer]] = {}
    for layer in layers:
        part = next((part for part in _PARTS if part in layer.name), "")
        found.setdefault(part, []).append(layer)
    return found


def _pair_part(teacher: LayerList, student: LayerList, *, from_last: bool) -> Iterator[LayerPair]:
    taken: dict[WeightedLayer, WeightedLayer] = {}
    for _, ours, others in _by_kind(teacher, student):
        for place, layer in enumerate(ours):
            source = at_even_depth(place, len(ours), len(others))
            if from_last:
                source = place + len(others) - len(ours)
            if 0 <= source < len(others):
                taken[layer] = others[source]
    return (LayerPair(layer, taken.get(layer)) for layer in student)


def at_even_depth(place: int, kept: int, count: int) -> int:
    """Return the place of `count` at the relative depth of a place of `kept`: i (n - 1) / (m - 1).

    Halves are rounded up. One of one is the first.
    """
    steps = max(1, kept - 1)
    return (2 * place * (count - 1) + steps) // (2 * steps)


def _by_name(teacher: LayerList, student: LayerList) -> dict[WeightedLayer, WeightedLayer]:
    """Pair layers whose last names agree, in order."""
    left = list(teacher)
    found: dict[WeightedLayer, WeightedLayer] = {}
    for layer in student:
        name = _last_name(layer)
        other = next((each for each in left if _last_name(each) == name), None)
        if other is not None:
            found[layer] = other
            left.remove(other)
    return found


def _last_name(layer: WeightedLayer) -> str:
    """Return the last name of a layer; the libraries' names of embeddings become one."""
    name = layer.name.rpartition(".")[2].lower()
    for part, one in (("pos", "position"), ("cls", "class"), ("class", "class")):
        if part in name:
            return one
    return name


def _with_classifier(teacher: LayerList, pairs: list[LayerPair]) -> list[LayerPair]:
    """Pair the classifiers if the student's has no counterpart yet."""
    last = classifier(teacher)
    own = classifier([pair.student for pair in pairs])
    if last is None or own is None or last.kind != own.kind:
        return pairs
    return [LayerPair(own, last) if pair == (own, None) else pair for pair in pairs]


def classifier(layers: LayerList) -> WeightedLayer | None:
    """Return the last convolution or linear map."""
    return next((layer for layer in reversed(layers) if layer.is_map), None)
