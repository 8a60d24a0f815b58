"""The one training loop: a student with a teacher, or any network alone."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy

from diswot import checkpoint, files
from diswot.checkpoint import Row
from diswot.data import Data, whole
from diswot.data.augment import augment
from diswot.errors import UserError
from diswot.evaluate import accuracy, check_fit, frozen
from diswot.initialise import derive_seed
from diswot.losses import Losses
from diswot.observe import observe, record
from diswot.recipe import SCHEDULES, Recipe


@dataclass(frozen=True)
class Distilled:
    """What training gave.

    Attributes:
        student: The trained network, in evaluation mode.
        history: A row an epoch: `epoch`, `loss` and its named parts, `train_accuracy` and
            `test_accuracy` in %, `lr` of the last batch, `seconds`.
        seconds: Spent in all epochs, those before a resume included.
    """

    student: nn.Module
    history: tuple[Row, ...]
    seconds: float

    @property
    def test_accuracy(self) -> float:
        """After the last epoch, in %; no epoch is picked by the test images."""
        return self.history[-1]["test_accuracy"]


def distill(
    student: nn.Module,
    teacher: nn.Module | None,
    data: Data,
    recipe: Recipe | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    on_step: Callable[[int, int, Row], None] = lambda step, steps, row: None,
    on_read: Callable[[int, int], None] = lambda done, total: None,
) -> Distilled:
    """Train a student from a teacher, or, without one, alone.

    The loss is cross-entropy with the labels plus weighted knowledge distances to the teacher,
    which sees the same augmented images in evaluation mode. The images that are left when an
    epoch is cut into batches are left out of it. The same call gives the same curve on one
    machine, also when it was stopped and resumed.

    Args:
        student: Trained in place, on the device that Accelerate picks.
        teacher: Trained already; moved to that device, and otherwise left as it is. None trains
            on the labels alone.
        data: With training and test images.
        recipe: How to train.
        out: Folder for the checkpoint, the history and the weights; nothing is kept without it.
        resume: Go on from the checkpoint in `out`, if there is one.
        on_step: Called after each batch with the step, the number of steps and the last row.
        on_read: Called while images are read, with those read and all.

    Raises:
        UserError: The data cannot be trained on, a network does not fit them, `out` cannot be
            written, or it holds a training that is not resumed or differs.
        FloatingPointError: The loss or the weights are not finite.
    """
    recipe = recipe or Recipe()
    if data.train is None or data.test is None:
        raise UserError(f"{data.name} has no images to train on")
    if len(data.train) < 2 or not len(data.test):
        raise UserError(f"{data.name} has too few images to train and test on")
    weights = [recipe.cross_entropy, *(recipe.losses.values() if teacher is not None else [])]
    if not any(weights):
        raise UserError("nothing to learn from: cross_entropy is 0, and so is every loss")
    if teacher is student:
        raise UserError("the student cannot be its own teacher")
    device = Accelerator().device
    place = Path(out) if out else None
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), frozen(teacher):
        run = _Training(student, teacher, data, recipe, device, place)
        run.restore(resume=resume)
        if len(run.history) < recipe.epochs:
            run.read(on_read)
        while len(run.history) < recipe.epochs:
            run.epoch(on_step)
        return run.finish()


def computes_in_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for bf16, so that autocast saves time."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    abilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(abilities.get("avx512_bf16") or abilities.get("amx_bf16"))


def _seed(seed: int, device: torch.device) -> None:
    """Seed what dropout draws from."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


@dataclass
class _Training:
    """A training on its way."""

    student: nn.Module
    teacher: nn.Module | None
    data: Data
    recipe: Recipe
    device: torch.device
    out: Path | None
    history: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        recipe = self.recipe
        for role, model in (("student", self.student), ("teacher", self.teacher)):
            if model is not None:
                model.to(self.device).to(memory_format=torch.channels_last).eval()
                check_fit(role, model, self.data, self.device)
        auto = recipe.precision == "auto" and computes_in_bf16(self.device)
        self.bf16 = auto or recipe.precision == "bf16"
        _seed(derive_seed(recipe.seed), self.device)
        self.losses = self._made_losses()
        groups = _groups(self.student, self.losses, recipe.weight_decay)
        momentum = float(recipe.momentum)
        self.optimizer = torch.optim.SGD(groups, momentum=momentum, nesterov=momentum > 0)
        assert self.data.train is not None
        self.steps = len(self.data.train) // recipe.batch_size or 1
        self.schedule = SCHEDULES[recipe.schedule]

    def _made_losses(self) -> Losses | None:
        """The knowledge distances, with what they learn, made for the shapes of both networks."""
        if self.teacher is None or not self.recipe.losses:
            return None
        images = torch.zeros(2, *self.data.image_shape, device=self.device)
        labels = torch.zeros(2, dtype=torch.int64, device=self.device)
        seen = [observe(model, images, labels, cam=True) for model in (self.teacher, self.student)]
        return Losses(self.recipe.losses, *seen).to(self.device)

    def read(self, on_read: Callable[[int, int], None]) -> None:
        """Read all images onto the device."""
        train, test = self.data.train, self.data.test
        assert train is not None and test is not None
        first, total = len(train), len(train) + len(test)
        self.train = whole(train, self.device, lambda done: on_read(done, total))
        self.test = whole(test, self.device, lambda done: on_read(first + done, total))

    def epoch(self, on_step: Callable[[int, int, Row], None]) -> None:
        """One pass over the training images, then the test images, then a checkpoint."""
        start, number = time.perf_counter(), len(self.history)
        seed = derive_seed(self.recipe.seed, number)
        _seed(seed, self.device)
        self.student.train()
        total: Counter[str] = Counter()
        last = self.history[-1] if self.history else {}
        steps = self.steps * self.recipe.epochs
        for step, (images, labels) in enumerate(self._batches(seed), number * self.steps):
            lr = float(self.recipe.lr * self.schedule(step / steps))
            total.update(self._step(images, labels, lr))
            on_step(step + 1, steps, last)
        self._check_weights()
        row = {"epoch": number + 1, **{name: value / self.steps for name, value in total.items()}}
        row["test_accuracy"] = accuracy(self.student, self.data, self.test, self.bf16)
        row["lr"] = lr
        row["seconds"] = time.perf_counter() - start
        self.history.append(row)
        if self.out is not None:
            checkpoint.save(self.out, self.facts, self._parts(), self.history)

    def _batches(self, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The epoch's batches of normalised, augmented images; a last small one is left out."""
        generator = Generator().manual_seed(seed)
        images, labels = self.train
        order = torch.randperm(len(labels), generator=generator)
        for chosen in torch.split(order, self.recipe.batch_size)[: self.steps]:
            chosen = chosen.to(self.device)
            batch = augment(images[chosen], self.recipe.crop, self.recipe.flip, generator)
            batch = self.data.normalise(batch)
            yield batch.contiguous(memory_format=torch.channels_last), labels[chosen]

    def _step(self, images: Tensor, labels: Tensor, lr: float) -> Row:
        """One batch: losses by name and accuracy, in %."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            parts, logits = self._losses(images, labels)
        loss = sum(parts.values())
        assert isinstance(loss, Tensor)
        if not torch.isfinite(loss):
            bad = [name for name, part in parts.items() if not torch.isfinite(part)]
            raise self._not_finite(" and ".join(bad or ["loss"]))
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()
        right = (logits.argmax(1) == labels).float().mean()
        values = {name: float(part.detach()) for name, part in parts.items()}
        return {"loss": float(loss.detach()), **values, "train_accuracy": 100 * float(right)}

    def _losses(self, images: Tensor, labels: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The weighted parts of the loss, and the logits."""
        weight = self.recipe.cross_entropy
        if self.teacher is None or self.losses is None:
            logits = self.student(images)
            if not isinstance(logits, Tensor):
                raise UserError(f"the student gives a {type(logits).__name__} in training mode")
            return {"cross_entropy": weight * cross_entropy(logits.float(), labels)}, logits
        cam = self.losses.needs_cam
        with torch.no_grad():
            taught = record(self.teacher, images, labels, cam=cam)
        seen = record(self.student, images, labels, cam=cam)
        logits = seen.logits.float()
        with torch.autocast(self.device.type, enabled=False):
            distances = self.losses(taught, seen)
        return {"cross_entropy": weight * cross_entropy(logits, labels), **distances}, logits

    def _check_weights(self) -> None:
        """Refuse to keep weights that are not finite, though every loss was."""
        for name, value in self.student.state_dict().items():
            if not torch.isfinite(value).all():
                raise self._not_finite(name)

    def _not_finite(self, what: str) -> FloatingPointError:
        kept = f"; the last good state is in {self.out}" if self.out and self.history else ""
        when = f"in epoch {len(self.history) + 1}"
        return FloatingPointError(f"{what} not finite {when}; try a lower lr{kept}")

    def _facts(self) -> dict[str, Any]:
        """What a training that is resumed must share."""
        assert self.data.train is not None
        return {
            **vars(self.recipe),
            "losses": dict(self.recipe.losses),
            "data": self.data.name,
            "classes": len(self.data.classes),
            "image_size": self.data.size,
            "training_images": len(self.data.train),
            "taught": self.teacher is not None,
            "teacher_checksum": checkpoint.checksum(self.teacher) if self.teacher else None,
        }

    def restore(self, *, resume: bool) -> None:
        """Take up the checkpoint, if there is one; refuse to overwrite or to mix trainings."""
        if self.out is None:
            return
        self.facts = self._facts()
        if not (self.out / checkpoint.CHECKPOINT).exists():
            return
        if not resume:
            raise UserError(f"{self.out} holds a training already; resume it, or choose another")
        self.history = checkpoint.load(self.out, self.facts, self._parts())

    def _parts(self) -> checkpoint.Parts:
        """What has a state."""
        parts: dict[str, Any] = {"student": self.student, "optimizer": self.optimizer}
        return parts if self.losses is None else {**parts, "losses": self.losses}

    def finish(self) -> Distilled:
        """Write the weights; the result."""
        self.student.eval()
        if self.out is not None:
            files.save_weights(self.student, self.out / checkpoint.WEIGHTS)
        seconds = math.fsum(row["seconds"] for row in self.history)
        return Distilled(self.student, tuple(self.history), seconds)


def _groups(
    student: nn.Module, losses: nn.Module | None, weight_decay: float
) -> list[dict[str, Any]]:
    """Weights, which decay, and biases and normalisation, which do not."""
    trained = [p for p in student.parameters() if p.requires_grad]
    if not trained:
        raise UserError("the student has no weights to train")
    trained += losses.parameters() if losses is not None else []
    weights = [p for p in trained if p.ndim > 1]
    others = [p for p in trained if p.ndim <= 1]
    groups = [(weights, float(weight_decay)), (others, 0.0)]
    return [{"params": params, "weight_decay": decay} for params, decay in groups if params]
