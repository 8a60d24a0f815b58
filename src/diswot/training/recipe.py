"""How to train a network: the settings of `distill`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from diswot.errors import UserError, unknown
from diswot.knowledge.registry import KNOWLEDGE, get_distance
from diswot.training.schedules import SCHEDULES, Drops

PRECISIONS = ("auto", "fp32", "bf16")
LARGEST = 1e9  # of learning rates and weights: beyond, single precision overflows at once

PRESETS: dict[str, dict[str, float]] = {
    "diswot": {"kd": 1.0, "semantic": 1.0, "relation": 3000.0},
    "diswot_class": {"kd": 1.0, "semantic_class": 1.0, "relation": 3000.0},
}
"""Distillers of several distances, by name; every distance alone is one, too.

`diswot` is the method's own (CVPR 2023): both distances of the search beside the softened outputs;
`diswot_class` the same for networks whose classifiers differ in width. The relation's weight is
that of Tung and Mori (ICCV 2019) for the same distance, whose values are below 4 / B; the others
are of order one.
"""


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        epochs: Passes over the training images.
        batch_size: B, at least 2: images behind one step, in all processes together.
        accumulate: Parts into which a batch is cut; their gradients are averaged. Statistics and
            relations are then of a part.
        lr: Highest learning rate of SGD.
        momentum: Of SGD, Nesterov's.
        weight_decay: Of SGD, on weights; not on biases and normalisation.
        schedule: A key of `SCHEDULES`, stepped each batch.
        milestones: Epochs after which `step` lowers the rate.
        decay: What `step` multiplies it by.
        cross_entropy: Weight of the cross-entropy with the labels.
        label_smoothing: Share of each label that is spread evenly over all classes.
        losses: Weight of each knowledge distance to the teacher, by key of `KNOWLEDGE`.
        temperature: T of those distances that soften outputs; None leaves each its own.
        ema: Decay a step of a moving average of the weights, which is what is tested and kept;
            0 for none. It warms up as (1 + step) / (10 + step).
        crop: Random shifts of up to so many pixels.
        area: Smallest share of an image that a random cut, resized, may show; 1 for no cuts.
        flip: Random horizontal flips.
        cutout: Side in pixels of a square that is blanked at a random place; 0 for none.
        cache: Keep the teacher's outputs for each image; needs images that are never altered and
            distances that look at outputs alone.
        precision: `fp32`, `bf16` (autocast), or `auto`: bf16 where the device computes in it.
        compile: Whether `torch.compile` builds both networks; needs distances that look at
            outputs alone.
        seed: Of the order and the augmentation of the images, 0 or more.
    """

    epochs: int = 240
    batch_size: int = 64
    accumulate: int = 1
    lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "cosine"
    milestones: tuple[float, ...] = ()
    decay: float = 0.1
    cross_entropy: float = 1.0
    label_smoothing: float = 0.0
    losses: Mapping[str, float] = field(default_factory=lambda: {"kd": 1.0})
    temperature: float | None = None
    ema: float = 0.0
    crop: int = 4
    area: float = 1.0
    flip: bool = True
    cutout: int = 0
    cache: bool = False
    precision: str = "auto"
    compile: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                raise UserError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if not 0 < self.lr < LARGEST:
            raise UserError(f"lr must be above 0 and below {LARGEST:g}, not {self.lr}")
        for name in ("momentum", "ema", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                value = getattr(self, name)
                raise UserError(f"{name} must be at least 0 and below 1, not {value}")
        for name in ("area", "decay"):
            if not 0 < getattr(self, name) <= 1:
                raise UserError(f"{name} must be above 0, at most 1, not {getattr(self, name)}")
        self._check_schedule()
        if self.precision not in PRECISIONS:
            raise unknown("precision", self.precision, PRECISIONS)
        self._check_losses()

    def _check_schedule(self) -> None:
        if self.schedule not in SCHEDULES:
            raise unknown("schedule", self.schedule, SCHEDULES)
        if bool(self.milestones) != (self.schedule == "step"):
            raise UserError("milestones belong to the schedule step, and it needs some")
        previous = 0.0
        for epoch in self.milestones:
            if not previous < epoch < LARGEST:
                given = ", ".join(f"{each:g}" for each in self.milestones)
                raise UserError(f"milestones must be epochs that rise from above 0, not {given}")
            previous = epoch

    def _check_losses(self) -> None:
        softens = ["temperature" in get_distance(name).defaults for name in self.losses]
        weights = {"weight_decay": self.weight_decay, "cross_entropy": self.cross_entropy}
        for name, weight in {**weights, **self.losses}.items():
            if not 0 <= weight < LARGEST:
                raise UserError(f"{name} must be at least 0 and below {LARGEST:g}, not {weight}")
        if self.temperature is not None:
            if not 0 < self.temperature < LARGEST:
                value = self.temperature
                raise UserError(f"temperature must be above 0, below {LARGEST:g}, not {value}")
            if self.losses and not any(softens):
                raise UserError(f"no temperature in {', '.join(self.losses)}; leave it out")
        if self.cache and self.alters:
            raise UserError("cache needs images as they are: crop 0, area 1, no flip, cutout 0")
        self._need_outputs("cache", self.cache)
        self._need_outputs("compile", self.compile)

    def _need_outputs(self, what: str, wanted: bool) -> None:
        for name in self.losses if wanted else ():
            if not get_distance(name).outputs_alone:
                raise UserError(f"{what} needs losses of outputs alone, and {name} sees more")

    @property
    def alters(self) -> bool:
        """Whether images differ from epoch to epoch."""
        return bool(self.crop or self.flip or self.cutout or self.area < 1)

    @property
    def outputs_alone(self) -> bool:
        """Whether no knowledge distance looks at more than outputs and labels."""
        return all(get_distance(name).outputs_alone for name in self.losses)

    def rate(self, done: float) -> float:
        """The learning rate when that share of the training is done, from 0 to 1."""
        drops = Drops(tuple(epoch / self.epochs for epoch in self.milestones), self.decay)
        return float(self.lr * SCHEDULES[self.schedule](done, drops))

    def as_dict(self) -> dict[str, object]:
        """The settings by name, as plain values."""
        named = {each.name: getattr(self, each.name) for each in fields(self)}
        return {**named, "losses": dict(self.losses), "milestones": list(self.milestones)}


_LEAST = {"epochs": 1, "batch_size": 2, "accumulate": 1, "crop": 0, "cutout": 0, "seed": 0}


def parse_losses(text: str) -> dict[str, float]:
    """Read weighted knowledge distances such as `kd:0.9,relation:1`; no weight means 1.

    A preset stands for all that it holds, its weight times theirs.

    Raises:
        UserError: A name is unknown or there twice, a weight is no number, or there is none.
    """
    losses: dict[str, float] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, weight = (piece.strip() for piece in part.partition(":"))
        try:
            factor = float(weight or 1)
        except ValueError as error:
            raise UserError(f"{weight!r} is no weight for {name}") from error
        for inner, share in expand(name).items():
            if inner in losses:
                raise UserError(f"{inner} is weighted twice in {text!r}")
            losses[inner] = factor * share
    if not losses:
        raise UserError("no loss is named; name some, such as kd:0.9,relation:1")
    return losses


def expand(name: str) -> dict[str, float]:
    """The distances behind the name of a preset or of a distance, with their weights.

    Raises:
        UserError: It is neither.
    """
    if name in PRESETS:
        return PRESETS[name]
    if name not in KNOWLEDGE:
        raise unknown("knowledge distance", name, [*KNOWLEDGE, *PRESETS])
    return {name: 1.0}
