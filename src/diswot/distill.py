"""The one training loop: a student with a teacher, or any network alone."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy, pad

from diswot import files, knowledge
from diswot.data import Data, Split
from diswot.errors import UserError
from diswot.initialise import derive_seed
from diswot.observe import record
from diswot.recipe import SCHEDULES, Recipe

CHECKPOINT, HISTORY, WEIGHTS = "checkpoint.pt", "history.jsonl", "student.safetensors"
EVAL_BATCH = 500

Row = dict[str, float]


@dataclass(frozen=True)
class Distilled:
    """What training gave.

    Attributes:
        student: The trained network, in evaluation mode.
        history: A row an epoch: `epoch`, `loss` and its named parts, `train_accuracy` and
            `test_accuracy` in %, `lr`, `seconds`.
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
) -> Distilled:
    """Train a student from a teacher, or, without one, alone.

    The loss is cross-entropy with the labels plus weighted knowledge distances to the teacher,
    which sees the same augmented images in evaluation mode. The same call gives the same curve
    on one machine, also when it was stopped and resumed.

    Args:
        student: Trained in place.
        teacher: Trained already; None trains on the labels alone.
        data: With training and test images.
        recipe: How to train.
        out: Folder for the checkpoint, the history and the weights; nothing is kept without it.
        resume: Go on from the checkpoint in `out`, if there is one.
        on_step: Called after each batch with the step, the number of steps and the last row.

    Raises:
        UserError: The data cannot be trained on, or `out` holds a training that is not resumed
            or differs.
        FloatingPointError: The loss is not finite.
    """
    recipe = recipe or Recipe()
    if data.train is None or data.test is None:
        raise UserError(f"{data.name} has no images to train on")
    device = Accelerator().device
    splits = whole(data.train, device), whole(data.test, device)
    run = _Training(student, teacher, data, recipe, *splits, device, Path(out) if out else None)
    with torch.random.fork_rng(devices=[]):
        run.restore(resume=resume)
        while len(run.history) < recipe.epochs:
            run.epoch(on_step)
    return run.finish()


def whole(split: Split, device: torch.device) -> tuple[Tensor, Tensor]:
    """All images of a split as one tensor of bytes, N x 3 x S x S, and the labels, N."""
    images = split.read(range(len(split)))
    return images.to(device), split.labels.to(device)


def augment(images: Tensor, crop: int, flip: bool, generator: Generator) -> Tensor:
    """Shift each image by up to `crop` pixels, zeros coming in, and mirror every other one.

    Args:
        images: B x C x S x S, of any type.
        crop: Largest shift in pixels.
        flip: Whether to mirror.
        generator: On the CPU.
    """
    count, _, side, _ = images.shape
    if crop:
        shifts = torch.randint(0, 2 * crop + 1, (2, count), generator=generator)
        shifts = shifts.to(images.device)
        span = torch.arange(side, device=images.device)
        rows = (shifts[0, :, None] + span)[:, :, None]
        columns = (shifts[1, :, None] + span)[:, None, :]
        sample = torch.arange(count, device=images.device)[:, None, None]
        padded = pad(images, [crop] * 4)
        images = padded[sample, :, rows, columns].permute(0, 3, 1, 2)
    if flip:
        mirrored = torch.rand(count, generator=generator).to(images.device) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    return images


@torch.no_grad()
def accuracy(
    model: nn.Module, data: Data, split: tuple[Tensor, Tensor], bf16: bool = False
) -> float:
    """Share of images, in %, whose label has the highest logit; in evaluation mode."""
    images, labels = split
    training = model.training
    model.eval()
    right = 0
    with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
        for i in range(0, len(labels), EVAL_BATCH):
            batch = data.normalise(images[i : i + EVAL_BATCH])
            logits = model(batch.contiguous(memory_format=torch.channels_last))
            right += int((logits.argmax(1) == labels[i : i + EVAL_BATCH]).sum())
    model.train(training)
    return 100 * right / len(labels)


def computes_in_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for bf16, so that autocast saves time."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    abilities = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(abilities.get("avx512_bf16") or abilities.get("amx_bf16"))


@dataclass
class _Training:
    """A training on its way."""

    student: nn.Module
    teacher: nn.Module | None
    data: Data
    recipe: Recipe
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    device: torch.device
    out: Path | None
    history: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        recipe, layout = self.recipe, {"memory_format": torch.channels_last}
        self.student.to(self.device, **layout)
        if self.teacher is not None:
            self.teacher.to(self.device, **layout).eval().requires_grad_(False)
        auto = recipe.precision == "auto" and computes_in_bf16(self.device)
        self.bf16 = auto or recipe.precision == "bf16"
        self.optimizer = torch.optim.SGD(
            _groups(self.student, recipe.weight_decay), recipe.lr, recipe.momentum, nesterov=True
        )
        self.steps = len(self.train[1]) // recipe.batch_size or 1
        self.schedule = SCHEDULES[recipe.schedule](
            self.optimizer, recipe.lr, self.steps * recipe.epochs
        )

    def epoch(self, on_step: Callable[[int, int, Row], None]) -> None:
        """One pass over the training images, then the test images, then a checkpoint."""
        start, number = time.perf_counter(), len(self.history)
        seed = derive_seed(self.recipe.seed, number)
        torch.default_generator.manual_seed(seed)
        self.student.train()
        total: Counter[str] = Counter()
        for step, (images, labels) in enumerate(self._batches(seed)):
            total.update(self._step(images, labels))
            last = self.history[-1] if self.history else {}
            on_step(number * self.steps + step + 1, self.steps * self.recipe.epochs, last)
        row = {"epoch": number + 1, **{name: value / self.steps for name, value in total.items()}}
        row["test_accuracy"] = accuracy(self.student, self.data, self.test, self.bf16)
        row["lr"] = self.optimizer.param_groups[0]["lr"]
        row["seconds"] = time.perf_counter() - start
        self.history.append(row)
        self._save()

    def _batches(self, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The epoch's batches of normalised, augmented images; a last small one is left out."""
        generator = Generator().manual_seed(seed)
        images, labels = self.train
        order = torch.randperm(len(labels), generator=generator)
        for chosen in order.split(self.recipe.batch_size)[: self.steps]:
            chosen = chosen.to(self.device)
            batch = augment(images[chosen], self.recipe.crop, self.recipe.flip, generator)
            batch = self.data.normalise(batch)
            yield batch.contiguous(memory_format=torch.channels_last), labels[chosen]

    def _step(self, images: Tensor, labels: Tensor) -> Row:
        """One batch: losses by name and accuracy, in %."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            parts, logits = self._losses(images, labels)
        loss = sum(parts.values())
        assert isinstance(loss, Tensor)
        if not torch.isfinite(loss):
            raise FloatingPointError(self._where_not_finite(parts))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        right = (logits.argmax(1) == labels).float().mean()
        values = {name: float(part.detach()) for name, part in parts.items()}
        return {"loss": float(loss.detach()), **values, "train_accuracy": 100 * float(right)}

    def _losses(self, images: Tensor, labels: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """The weighted parts of the loss, and the logits."""
        recipe = self.recipe
        if self.teacher is None or not recipe.losses:
            logits = self.student(images).float()
            return {"cross_entropy": cross_entropy(logits, labels)}, logits
        with torch.no_grad():
            taught = record(self.teacher, images, labels)
        seen = record(self.student, images, labels)
        logits = seen.logits.float()
        parts = {"cross_entropy": recipe.cross_entropy * cross_entropy(logits, labels)}
        with torch.autocast(self.device.type, enabled=False):
            for name, weight in recipe.losses.items():
                parts[name] = weight * knowledge.get(name).distance(taught, seen)
        return parts, logits

    def _where_not_finite(self, parts: Mapping[str, Tensor]) -> str:
        bad = [name for name, part in parts.items() if not torch.isfinite(part)]
        kept = f"; the last good state is in {self.out}" if self.out and self.history else ""
        return f"{' and '.join(bad)} not finite in epoch {len(self.history) + 1}{kept}"

    def _facts(self) -> dict[str, Any]:
        return {**asdict(self.recipe), "data": self.data.name, "taught": self.teacher is not None}

    def _save(self) -> None:
        if self.out is None:
            return
        state = {
            "facts": self._facts(),
            "student": self.student.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "history": self.history,
        }
        files.write(self.out / CHECKPOINT, lambda path: torch.save(state, path))
        files.write_lines(self.out / HISTORY, self.history)

    def restore(self, *, resume: bool) -> None:
        """Load the checkpoint, if there is one; refuse to overwrite or to mix trainings."""
        path = self.out / CHECKPOINT if self.out else None
        if path is None or not path.exists():
            return
        if not resume:
            raise UserError(f"{self.out} holds a training already; resume it, or choose another")
        state = files.load_tensors(path)
        facts = self._facts()
        for name in facts:
            if state["facts"].get(name) != facts[name]:
                was = state["facts"].get(name)
                raise UserError(f"the training to resume has {name} = {was!r}, not {facts[name]!r}")
        self.student.load_state_dict(state["student"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.history = state["history"]

    def finish(self) -> Distilled:
        """Write the weights; the result."""
        self.student.eval()
        if self.out is not None:
            files.save_weights(self.student, self.out / WEIGHTS)
        seconds = math.fsum(row["seconds"] for row in self.history)
        return Distilled(self.student, tuple(self.history), seconds)


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    weights = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [(weights, weight_decay), (others, 0.0)]
    return [{"params": params, "weight_decay": decay} for params, decay in groups if params]
