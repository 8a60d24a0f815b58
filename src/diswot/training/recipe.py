"""Training recipes: the settings of `distill`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields

from diswot.errors import UserError, unknown
from diswot.knowledge.registry import KNOWLEDGE, Published, Weights, get_distance, get_distances
from diswot.utils import user_code

OPTIMIZERS = ("sgd", "adamw", "lamb")
SCHEDULES = ("cosine", "onecycle", "poly", "step")
PRECISIONS = ("auto", "fp32", "bf16")
LARGEST = 1e9  # of learning rates and weights: single precision overflows beyond
PUBLISHED = "published"  # in place of a weight: that of the distance's paper
MAGNITUDES = 30  # the largest magnitude of RandAugment

PRESETS: dict[str, dict[str, float]] = {
    "diswot": {"kd": 1.0, "semantic": 1.0, "relation": 3000.0},
    "diswot_class": {"kd": 1.0, "semantic_class": 1.0, "relation": 3000.0},
}
"""Distillers that combine several distances, by name. Every single distance is a distiller, too.

`diswot` is the method's own (CVPR 2023): both distances of the search beside the softened outputs.
`diswot_class` is the same for networks whose classifiers differ in width. The weight of the
relation is that of Tung and Mori (ICCV 2019) for the same distance, whose values are below 4 / B.
The values of the other distances are of order one.
"""


@dataclass(frozen=True)
class Recipe:
    """Settings of a training.

    Attributes:
        epochs: Passes over the training images.
        batch_size: Images behind one update, over all processes; at least 2.
        accumulate: Parts into which a batch is cut to save memory. Gradients of the parts are
            averaged. Batch statistics, relations and mixed images are those of a part.
        views: Augmented views of each image in a batch, 1 or 2; the loss is their mean. Of two,
            the first is weak (`crop`, `area` and `flip` alone), the second has the whole
            augmentation, as in multi-level logit distillation (Jin et al., CVPR 2023).
        optimizer: `sgd` with Nesterov momentum, `adamw` or `lamb`.
        lr: Highest learning rate.
        momentum: Momentum of `sgd`. The other optimizers ignore it.
        weight_decay: Weight decay of matrices and kernels. Biases, normalisation layers and the
            parameters that a network lists in `no_weight_decay()` do not decay.
        schedule: `cosine`, `onecycle`, `poly` (a power of 0.9, as is usual for segmentation) or
            `step`. The learning rate changes at each update.
        warmup_epochs: Epochs in which the learning rate rises linearly from a hundredth of `lr`;
            0 for none. They count as epochs of the schedule. `onecycle` warms up by itself.
        milestones: Epochs after which the schedule `step` lowers the learning rate.
        decay: Factor by which the schedule `step` multiplies the learning rate.
        clip_grad: Largest norm of the gradient of an update, over all weights; 0 for no limit.
        cross_entropy: Weight of the cross-entropy with the labels.
        dice: Weight of the Dice loss of pixels; 0 for none.
        label_smoothing: Share of each label that is spread evenly over all classes.
        losses: Weight of each knowledge distance to the teacher, by a name or a function as
            `get_distance` takes it.
        temperature: T of the distances that soften outputs; None for the default of each.
        ramp_epochs: Epochs in which the weights of the distances grow linearly from zero, update by
            update; 0 for full weights from the start.
        ema: Decay per update of an exponential moving average of the weights, which is tested and
            kept in place of the weights; 0 for none. It warms up as 1 - n^(-2/3) after n updates.
        crop: Largest random shift in pixels.
        area: Smallest share of an image that a random resized crop shows; 1 for no crop.
        flip: Whether half of the images, chosen at random, are mirrored.
        cutout: Side in pixels of a square that is blanked at a random place; 0 for none.
        randaugment: Magnitude, up to 30, of the two random operations of RandAugment on each
            image; 0 for none.
        mixup: Alpha of mixup, which averages pairs of images and labels; 0 for none.
        cutmix: Alpha of cutmix, which pastes a rectangle of one image into another; 0 for none.
            With `mixup` as well, each batch takes one of the two at random.
        cache: Whether the teacher's outputs are kept for each image. The images must not be
            altered, and the distances must look at outputs alone.
        precision: `fp32`, `bf16` (autocast), or `auto` for bf16 where the device computes in it.
        compile: Whether `torch.compile` builds both networks. The distances must look at outputs
            alone.
        seed: Seed of the order and the augmentation of the images; 0 or more.
    """

    epochs: int = 240
    batch_size: int = 64
    accumulate: int = 1
    views: int = 1
    optimizer: str = "sgd"
    lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "cosine"
    warmup_epochs: float = 0.0
    milestones: tuple[float, ...] = ()
    decay: float = 0.1
    clip_grad: float = 0.0
    cross_entropy: float = 1.0
    dice: float = 0.0
    label_smoothing: float = 0.0
    losses: Weights = field(default_factory=lambda: {"kd": 1.0})
    temperature: float | None = None
    ramp_epochs: float = 0.0
    ema: float = 0.0
    crop: int = 4
    area: float = 1.0
    flip: bool = True
    cutout: int = 0
    randaugment: int = 0
    mixup: float = 0.0
    cutmix: float = 0.0
    cache: bool = False
    precision: str = "auto"
    compile: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        self._check_numbers()
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise unknown(name, getattr(self, name), known)
        self._check_schedule()
        self._check_losses()
        if self.cache and self.alters:
            raise UserError(_STILL)
        if self.views == 2 and not self.alters:
            raise UserError("two views of an image are the same unless images are altered")
        self._need_outputs("cache", self.cache)
        self._need_outputs("compile", self.compile)

    def _check_numbers(self) -> None:
        for names, holds, said in _LIMITS:
            for name in names.split():
                if not holds(value := getattr(self, name)):
                    raise UserError(f"{name} must be {said}, not {value}")

    def _check_schedule(self) -> None:
        if self.warmup_epochs and self.schedule == "onecycle":
            raise UserError("warmup_epochs must be 0 for the schedule onecycle, which warms up")
        if self.warmup_epochs >= self.epochs:
            given = f"{self.warmup_epochs:g} of {self.epochs} epochs"
            raise UserError(f"warmup_epochs must be fewer than epochs, not {given}")
        if bool(self.milestones) != (self.schedule == "step"):
            raise UserError("milestones belong to the schedule step, and it needs some")
        previous = 0.0
        for epoch in self.milestones:
            if not previous < epoch < LARGEST:
                given = ", ".join(f"{each:g}" for each in self.milestones)
                raise UserError(f"milestones must be epochs that rise from above 0, not {given}")
            previous = epoch

    def _check_losses(self) -> None:
        if not isinstance(self.losses, Mapping):
            kind = type(self.losses).__name__
            raise UserError(f"losses must be weights by name, such as {{'kd': 0.9}}, not a {kind}")
        get_distances(self.losses)
        for name, weight in self.losses.items():
            if not 0 <= weight < LARGEST:
                raise UserError(f"{user_code.name_of(name)} must be {_WEIGHT}, not {weight}")
        if self.temperature is None:
            return
        if not 0 < self.temperature < LARGEST:
            value = self.temperature
            raise UserError(f"temperature must be above 0, below {LARGEST:g}, not {value}")
        softens = ["temperature" in get_distance(name).defaults for name in self.losses]
        if self.losses and not any(softens):
            raise UserError(f"no temperature in {', '.join(self.weights)}; leave it out")

    def _need_outputs(self, what: str, wanted: bool) -> None:
        for name in self.losses if wanted else ():
            if not get_distance(name).outputs_alone:
                said = user_code.name_of(name)
                raise UserError(f"{what} needs losses of outputs alone, and {said} sees more")

    @property
    def weights(self) -> dict[str, float]:
        """The losses with a function's name in place of the function."""
        return {user_code.name_of(name): weight for name, weight in self.losses.items()}

    @property
    def mixes(self) -> bool:
        """Whether pairs of images are mixed."""
        return bool(self.mixup or self.cutmix)

    @property
    def alters(self) -> bool:
        """Whether an image differs from epoch to epoch."""
        changes = (self.crop, self.flip, self.cutout, self.randaugment, self.mixes)
        return any(changes) or self.area < 1

    @property
    def outputs_alone(self) -> bool:
        """Whether all knowledge distances look at outputs and labels alone."""
        return all(get_distance(name).outputs_alone for name in self.losses)

    def as_dict(self) -> dict[str, object]:
        """Return the settings by name, as plain values."""
        named = {each.name: getattr(self, each.name) for each in fields(self)}
        return {**named, "losses": self.weights, "milestones": list(self.milestones)}


_WEIGHT = f"at least 0 and below {LARGEST:g}"
_LIMITS: tuple[tuple[str, Callable[[float], bool], str], ...] = (
    ("epochs accumulate", lambda value: value >= 1, "at least 1"),
    ("batch_size", lambda value: value >= 2, "at least 2"),
    ("seed crop cutout randaugment", lambda value: value >= 0, "at least 0"),
    ("randaugment", lambda value: value <= MAGNITUDES, f"at most {MAGNITUDES}"),
    ("lr", lambda value: 0 < value < LARGEST, f"above 0 and below {LARGEST:g}"),
    ("momentum ema label_smoothing", lambda value: 0 <= value < 1, "at least 0 and below 1"),
    (
        "weight_decay clip_grad cross_entropy dice mixup cutmix warmup_epochs ramp_epochs",
        lambda value: 0 <= value < LARGEST,
        _WEIGHT,
    ),
    ("views", lambda value: value in (1, 2), "1 or 2"),
    ("area decay", lambda value: 0 < value <= 1, "above 0, at most 1"),
)
_CHOICES = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES, "precision": PRECISIONS}
_STILL = (
    "cache needs images as they are: crop 0, area 1, no flip, cutout 0, "
    "randaugment 0, mixup 0, cutmix 0"
)


def parse_losses(text: str) -> dict[str, float]:
    """Read weighted knowledge distances such as `kd:0.9,relation:1`; the default weight is 1.

    The name of a preset stands for its distances; their weights are multiplied by the weight given.
    The weight `published` is that of the distance's paper. A distance of the user, as
    `file.py:function:0.5`, is returned with an absolute path.

    Raises:
        UserError: A name is unknown or occurs twice, a weight is no number or not published, or no
            name is given.
    """
    losses = combined((name, _factor(name, weight)) for name, weight in _weighted(text))
    if not losses:
        raise UserError("no loss is named; name some, such as kd:0.9,relation:1")
    return losses


def combined(weighted: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Return weighted distances, with those of a preset in place of its name.

    Raises:
        UserError: A name is unknown, or a distance occurs twice.
    """
    losses: dict[str, float] = {}
    for name, weight in weighted:
        for inner, share in _expand(name).items():
            if inner in losses:
                raise UserError(f"{inner} is weighted twice")
            losses[inner] = weight * share
    return losses


def _weighted(text: str) -> list[tuple[str, str]]:
    """Return the names and weights in a text, before they are checked."""
    return [_split(part.strip()) for part in text.split(",") if part.strip()]


def _split(part: str) -> tuple[str, str]:
    """Return a name and its weight, which is empty where there is none."""
    own, _, weight = part.rpartition(":")
    if user_code.is_spec(part):
        own, weight = part, ""
    if user_code.is_spec(own):
        return user_code.absolute(own.strip()), weight.strip()
    name, _, weight = part.partition(":")
    return name.strip(), weight.strip()


def _factor(name: str, weight: str) -> float:
    if weight == PUBLISHED:
        return _published(name).weight
    try:
        return float(weight or 1)
    except ValueError as error:
        raise UserError(f"{weight!r} is no weight for {name}") from error


def _published(name: str) -> Published:
    row = KNOWLEDGE.get(name)
    if row is None or row.published is None:
        known = ", ".join(each for each, row in KNOWLEDGE.items() if row.published)
        raise UserError(f"no weight of {name} is published on its scale here, but of {known}")
    return row.published


def published_settings(text: str, epochs: int) -> dict[str, float]:
    """Return the settings of a recipe that belong to the weights `published` of a text of losses.

    Raises:
        UserError: Two of the distances are published with different weights of the cross-entropy.
    """
    rows = [_published(name) for name, weight in _weighted(text) if weight == PUBLISHED]
    if not rows:
        return {}
    if len({row.cross_entropy for row in rows}) > 1:
        raise UserError(f"published weights of the cross-entropy differ in {text!r}; give numbers")
    ramp = max(row.ramp for row in rows) * epochs
    return {"cross_entropy": rows[0].cross_entropy, "ramp_epochs": ramp}


def _expand(name: str) -> dict[str, float]:
    """Return the weighted distances that the name of a preset or a distance stands for."""
    if name in PRESETS:
        return PRESETS[name]
    if name not in KNOWLEDGE and not user_code.is_spec(name):
        raise unknown("knowledge distance", name, [*KNOWLEDGE, *PRESETS])
    return {user_code.rooted(name): 1.0}
