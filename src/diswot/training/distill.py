"""The one training loop: a student with a teacher, or any network alone."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from diswot.data.augmentation import Changes, apply, draw, some
from diswot.data.dataset import Dataset
from diswot.data.loader import Source, source
from diswot.errors import UserError
from diswot.knowledge.losses import Losses
from diswot.models.initialization import derive_seed
from diswot.training import checkpoint
from diswot.training.checkpoint import Row
from diswot.training.distributed import Processes
from diswot.training.ema import Average
from diswot.training.energy import meter
from diswot.training.evaluation import check_fit, frozen, right
from diswot.training.objective import Objective, made_losses
from diswot.training.recipe import Recipe
from diswot.training.tensorboard import board
from diswot.utils import files

OnStep = Callable[[int, int, Row], None]
OnRead = Callable[[int, int], None]
OnEpoch = Callable[[Row], None]

LAG = {"cuda": 1}  # steps after which a loss is read from a device that computes ahead


@dataclass(frozen=True)
class Distilled:
    """What training gave.

    Attributes:
        student: The trained network, in evaluation mode.
        history: A row an epoch: `epoch`, `loss` and its named parts, `train_accuracy` and
            `test_accuracy` in %, `lr` of the last batch, `seconds`, `images_per_second` of the
            training images, and `joules` where they can be read.
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
    data: Dataset,
    recipe: Recipe | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    hold: bool | None = None,
    tensorboard: bool = False,
    on_step: OnStep = lambda step, steps, row: None,
    on_read: OnRead = lambda done, total: None,
    on_epoch: OnEpoch = lambda row: None,
) -> Distilled:
    """Train a student from a teacher, or, without one, alone.

    The loss is cross-entropy with the labels plus weighted knowledge distances to the teacher,
    which sees the same augmented images in evaluation mode. The images that are left when an
    epoch is cut into batches are left out of it. The same call gives the same curve on one
    machine, also when it was stopped and resumed; several processes, started by `accelerate
    launch`, share each batch and give the same curve to rounding.

    Args:
        student: Trained in place, on the device that Accelerate picks.
        teacher: Trained already; moved to that device, and otherwise left as it is. None trains
            on the labels alone.
        data: With training and test images.
        recipe: How to train.
        out: Folder for the checkpoint, the history and the weights; nothing is kept without it.
        resume: Go on from the checkpoint in `out`, if there is one.
        hold: Whether all images lie on the device; None where they fit there.
        tensorboard: Whether the curves are written for TensorBoard, too, in `out`.
        on_step: Called after each batch with the step, the number of steps and the last row.
        on_read: Called while images are read, with those read and all.
        on_epoch: Called after each epoch, when it is kept, with its row.

    Raises:
        UserError: The data cannot be trained on, a network does not fit them, `out` cannot be
            written, or it holds a training that is not resumed or differs.
        FloatingPointError: The loss or the weights are not finite.
    """
    recipe = recipe or Recipe()
    _check(student, teacher, data, recipe)
    processes = Processes()
    place = Path(out) if out else None
    cuda = [processes.device] if processes.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), frozen(teacher):
        run = Training(student, teacher, data, recipe, processes, place)
        run.restore(resume=resume)
        told = [on_epoch]
        if tensorboard and place is not None and processes.main:
            told.append(board(place, len(run.history)))
        if len(run.history) < recipe.epochs:
            run.read(on_read, hold)
        with processes.whole_statistics(student):
            while len(run.history) < recipe.epochs:
                row = run.epoch(on_step)
                for tell in told:
                    tell(row)
        return run.finish()


def _check(student: nn.Module, teacher: nn.Module | None, data: Dataset, recipe: Recipe) -> None:
    """Refuse what cannot be trained."""
    if data.train is None or data.test is None:
        raise UserError(f"{data.name} has no images to train on")
    if len(data.train) < 2 or not len(data.test):
        raise UserError(f"{data.name} has too few images to train and test on")
    weights = [recipe.cross_entropy, *(recipe.losses.values() if teacher is not None else [])]
    if not any(weights):
        raise UserError("nothing to learn from: cross_entropy is 0, and so is every loss")
    if teacher is student:
        raise UserError("the student cannot be its own teacher")


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
class Training:
    """A training on its way, which `distill` drives."""

    student: nn.Module
    teacher: nn.Module | None
    data: Dataset
    recipe: Recipe
    processes: Processes
    out: Path | None
    history: list[Row] = field(default_factory=list)
    total: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        recipe, self.device = self.recipe, self.processes.device
        for role, model in (("student", self.student), ("teacher", self.teacher)):
            if model is not None:
                model.to(self.device).to(memory_format=torch.channels_last).eval()
                check_fit(role, model, self.data, self.device)
        auto = recipe.precision == "auto" and computes_in_bf16(self.device)
        self.bf16 = auto or recipe.precision == "bf16"
        _seed(derive_seed(recipe.seed), self.device)
        self.losses = made_losses(self.student, self.teacher, self.data, recipe, self.device)
        groups = _groups(self.student, self.losses, recipe.weight_decay)
        momentum = float(recipe.momentum)
        self.optimizer = torch.optim.SGD(groups, momentum=momentum, nesterov=momentum > 0)
        self.average = Average(self.student, recipe.ema) if recipe.ema else None
        self.objective = Objective(
            self.student, self.teacher, self.losses, recipe, self.processes, self.bf16
        )
        self._cut()

    def _cut(self) -> None:
        """Settle how an epoch is cut into steps."""
        assert self.data.train is not None
        count, recipe = len(self.data.train), self.recipe
        self.steps = count // recipe.batch_size or 1
        self.batch = min(count, recipe.batch_size)
        if self.batch < recipe.batch_size:
            self.batch -= self.batch % (recipe.accumulate * self.processes.count)
        self.processes.check(self.batch or recipe.batch_size, recipe.accumulate)
        if self.batch < 2 * recipe.accumulate:
            raise UserError(f"{count} images are too few for a batch in {recipe.accumulate} parts")
        self.changes = Changes(recipe.crop, recipe.area, recipe.flip, recipe.cutout)

    def read(self, on_read: OnRead, hold: bool | None) -> None:
        """Get the images ready, and the teacher's outputs where they are to be kept."""
        train, test = self.data.train, self.data.test
        assert train is not None and test is not None
        first, total = len(train), len(train) + len(test)
        told = [lambda done: on_read(done, total), lambda done: on_read(first + done, total)]
        self.train: Source = source(train, self.data, self.device, told[0], hold=hold)
        self.test: Source = source(test, self.data, self.device, told[1], hold=hold)
        self.objective.keep(self.train, self.data, len(train))
        self.joules = meter(self.device)

    def epoch(self, on_step: OnStep) -> Row:
        """One pass over the training images, then the test images, then a checkpoint."""
        start, number = time.perf_counter(), len(self.history)
        before = self.joules() if self.joules is not None else 0.0
        lr = self._pass(number, on_step)
        trained = time.perf_counter() - start
        row = {"epoch": number + 1, **{n: value / self.steps for n, value in self.total.items()}}
        row["test_accuracy"] = self._tested()
        row["lr"] = lr
        row["seconds"] = time.perf_counter() - start
        row["images_per_second"] = self.steps * self.batch / trained
        if self.joules is not None:
            row["joules"] = self.joules() - before
        self.history.append(row)
        if self.out is not None and self.processes.main:
            checkpoint.save(self.out, self.facts, self._parts(), self.history)
        return row

    def _pass(self, number: int, on_step: OnStep) -> float:
        """The steps of epoch `number`, counted in `total`; returns the last one's rate."""
        seed = derive_seed(self.recipe.seed, number)
        _seed(seed + self.processes.rank, self.device)
        self.student.train()
        self.total.clear()
        waiting: deque[tuple[int, dict[str, Tensor]]] = deque()
        last = self.history[-1] if self.history else {}
        steps = self.steps * self.recipe.epochs
        for step, parts in enumerate(self.batches(seed), number * self.steps):
            lr = self.recipe.rate(step / steps)
            waiting.append((step + 1, self.step(parts, lr)))
            while len(waiting) > LAG.get(self.device.type, 0):
                self.count(*waiting.popleft())
            on_step(step + 1, steps, last)
        while waiting:
            self.count(*waiting.popleft())
        self._check_weights()
        return lr

    def batches(self, seed: int) -> Iterator[list[tuple[Tensor, Tensor, Tensor]]]:
        """The epoch's batches, in parts: normalised images, labels, indices; this process's.

        Random numbers are drawn for whole batches. A last small batch is left out.
        """
        assert self.data.train is not None
        generator = Generator().manual_seed(seed)
        order = torch.randperm(len(self.data.train), generator=generator)
        size = self.batch // self.recipe.accumulate
        share = self.processes.share(size)
        pieces = torch.split(order[: self.steps * self.batch], size)
        read = self.train.batches(piece[share] for piece in pieces)
        parts = []
        for piece, (images, labels) in zip(pieces, read, strict=True):
            drawn = draw(self.changes, size, self.data.size, generator)
            changed = apply(images, self.changes, some(drawn, share))
            batch = self.data.normalise(changed).contiguous(memory_format=torch.channels_last)
            parts.append((batch, labels, piece[share]))
            if len(parts) == self.recipe.accumulate:
                yield parts
                parts = []

    def step(self, parts: list[tuple[Tensor, Tensor, Tensor]], lr: float) -> dict[str, Tensor]:
        """One batch: losses by name and accuracy, in %; still on the device."""
        values: dict[str, Tensor] = {}
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad()
        for part in parts:
            losses, told = self.objective(*part)
            loss = torch.stack(list(losses.values())).sum() / len(parts)
            torch.autograd.backward(loss)
            shown = {
                "loss": loss * len(parts),
                **losses,
                "train_accuracy": 100 * told.float().mean(),
            }
            for name, value in shown.items():
                values[name] = values.get(name, 0) + value.detach().float() / len(parts)
        self.processes.average(self._trained())
        self.optimizer.step()
        if self.average is not None:
            self.average.follow(self.student)
        return values

    def _trained(self) -> Iterator[nn.Parameter]:
        for group in self.optimizer.param_groups:
            yield from group["params"]

    def count(self, step: int, values: dict[str, Tensor]) -> None:
        """Add a step's losses up; stop at one that is not finite."""
        numbers = dict(zip(values, torch.stack(list(values.values())).tolist(), strict=True))
        bad = [name for name, number in numbers.items() if not math.isfinite(number)]
        if bad:
            raise self._not_finite(" and ".join([n for n in bad if n != "loss"] or bad), step)
        self.total.update(numbers)

    def _check_weights(self) -> None:
        """Refuse to keep weights that are not finite, though every loss was."""
        for name, value in self.student.state_dict().items():
            if not torch.isfinite(value).all():
                raise self._not_finite(name, (len(self.history) + 1) * self.steps)

    def _not_finite(self, what: str, step: int) -> FloatingPointError:
        kept = f"; the last good state is in {self.out}" if self.out and self.history else ""
        when = f"at step {step}, in epoch {len(self.history) + 1}"
        return FloatingPointError(f"{what} not finite {when}; try a lower lr{kept}")

    def _tested(self) -> float:
        """Accuracy on the test images, in %, each process telling its share of them."""
        assert self.data.test is not None
        model = self.student if self.average is None else self.average.model
        indices = torch.arange(len(self.data.test))[self.processes.rank :: self.processes.count]
        told = right(model, self.data, self.test, indices, self.bf16)
        return 100 * float(self.processes.sum(told)) / len(self.data.test)

    def _facts(self) -> dict[str, Any]:
        """What a training that is resumed must share."""
        assert self.data.train is not None
        return {
            **self.recipe.as_dict(),
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
        plain = Recipe().as_dict()
        self.history = checkpoint.load(self.out, self.facts, self._parts(), plain)

    def _parts(self) -> checkpoint.Parts:
        """What has a state."""
        parts: dict[str, Any] = {"student": self.student, "optimizer": self.optimizer}
        more = {"losses": self.losses, "average": self.average}
        return {**parts, **{name: part for name, part in more.items() if part is not None}}

    def finish(self) -> Distilled:
        """Write the weights; the result."""
        if self.average is not None:
            self.student.load_state_dict(self.average.model.state_dict())
        self.student.eval()
        if self.out is not None and self.processes.main:
            files.save_weights(self.student, self.out / checkpoint.WEIGHTS)
        self.processes.wait()
        seconds = math.fsum(row["seconds"] for row in self.history)
        return Distilled(self.student, tuple(self.history), seconds)


def _groups(student: nn.Module, losses: Losses | None, weight_decay: float) -> list[dict[str, Any]]:
    """Weights, which decay, and biases and normalisation, which do not."""
    trained = [p for p in student.parameters() if p.requires_grad]
    if not trained:
        raise UserError("the student has no weights to train")
    trained += losses.parameters() if losses is not None else []
    weights = [p for p in trained if p.ndim > 1]
    others = [p for p in trained if p.ndim <= 1]
    groups = [(weights, float(weight_decay)), (others, 0.0)]
    return [{"params": params, "weight_decay": decay} for params, decay in groups if params]
