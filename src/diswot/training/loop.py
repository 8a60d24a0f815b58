"""The training loop: epochs of updates, each tested and kept in a checkpoint."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from timm.utils import ModelEmaV3  # type: ignore[attr-defined]
from torch import Tensor, nn

from diswot.costs.counts import count_sizes
from diswot.data.loader import BatchSource, source
from diswot.errors import UserError
from diswot.models.initialization import derive_seed
from diswot.models.resized import ResizedInput
from diswot.storage.run_files import FRESH
from diswot.tasks.registry import task_of
from diswot.tasks.task import Task, table
from diswot.training import checkpoint
from diswot.training.batches import Batches
from diswot.training.checkpoint import EpochRow
from diswot.training.distributed import Processes
from diswot.training.evaluation import (
    check_fit,
    check_gradient,
    example_loss,
    labelled_by_model,
    predict,
    sum_counts,
)
from diswot.training.objective import Objective, create_losses
from diswot.training.optimizer import create_optimizer, create_schedule
from diswot.training.recipe import Recipe
from diswot.training.starts import Start
from diswot.training.step import TrainingStep
from diswot.training.trainable import Distillation
from diswot.utils import state_dicts

OnStep = Callable[[int, int, EpochRow], None]
OnRead = Callable[[int, int], None]
OnEpoch = Callable[[EpochRow], None]

_BY_CLASS = "by_class"  # in a checkpoint
LAG = {"cuda": 1}  # updates after which a loss is read from a device that computes ahead


def computes_in_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for bf16, so that autocast saves time."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    abilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(abilities.get("avx512_bf16") or abilities.get("amx_bf16"))


@dataclass
class TrainingLoop:
    """A training under way.

    Attributes:
        given: The student and what it learns from.
        out: Folder of the checkpoints; None to keep nothing.
        start: Where the student's weights are from.
        history: One row for each finished epoch.
        by_class: Test result of each class after the last epoch, and their means; empty before it,
            and in classification.
    """

    given: Distillation
    processes: Processes
    out: Path | None = None
    start: Start = field(default_factory=Start)
    history: list[EpochRow] = field(default_factory=list)
    by_class: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given, self.device = self.given, self.processes.device
        self.teacher, self.student, self.data = given.teacher, given.student, given.data
        self.recipe = recipe = given.recipe
        for role, model in (("student", self.student), ("teacher", self.teacher)):
            if model is not None:
                model.to(self.device).to(memory_format=torch.channels_last).eval()
                classes = given.classes if model is self.teacher else None
                check_fit(role, model, self.data, self.device, classes)
        check_gradient(self.student, self.data, self.device)
        self.sizes = count_sizes(self.student, self.data.image_shape)
        task = task_of(self.data)
        auto = recipe.precision == "auto" and task.bf16 and computes_in_bf16(self.device)
        self.bf16 = auto or recipe.precision == "bf16"
        self.batches = Batches(self.data, recipe, self.processes)
        _seed(derive_seed(recipe.seed), self.device)
        self.losses = create_losses(given, self.device)
        self.optimizer = create_optimizer(self.student, self.losses, recipe)
        self.average = ModelEmaV3(self.student, recipe.ema, use_warmup=True) if recipe.ema else None

    @property
    def finished(self) -> bool:
        """Whether all epochs are done."""
        return len(self.history) >= self.recipe.epochs

    @property
    def seconds(self) -> float:
        """Duration of all epochs, those before a resume included."""
        return math.fsum(row["seconds"] for row in self.history)

    def restore(self, *, resume: bool) -> None:
        """Load the checkpoint, if there is one.

        Raises:
            UserError: The folder is a file, there is a checkpoint and `resume` is false, or it is
                another training's.
        """
        if self.out is None:
            return
        if self.out.exists() and not self.out.is_dir():
            raise UserError(f"cannot write {self.out / checkpoint.CHECKPOINT}: no such folder")
        self.settings = self._settings()
        if not (self.out / checkpoint.CHECKPOINT).exists():
            return
        if not resume:
            raise UserError(f"{self.out} holds a training already; resume it, or choose another")
        plain = {**Recipe().as_dict(), "start": FRESH}
        self.history, notes = checkpoint.load(self.out, self.settings, self._parts(), plain)
        self.by_class = notes.get(_BY_CLASS, {})

    def read(self, on_read: OnRead, hold: bool | None) -> None:
        """Open the training and test images; read them onto the device where they are held."""
        train, test = self.data.train, self.data.test
        assert train is not None and test is not None
        if self.data.tests_agreement:
            assert self.teacher is not None
            test = labelled_by_model(test, self.teacher, self.data)
        first, total = len(train), len(train) + len(test)
        self.train: BatchSource = source(
            train, self.data, self.device, lambda done: on_read(done, total), hold=hold
        )
        self.test: BatchSource = source(
            test, self.data, self.device, lambda done: on_read(first + done, total), hold=hold
        )

    def create_step(self, network: nn.Module) -> TrainingStep:
        """Create the training step for the next epoch."""
        recipe, steps = self.recipe, self.batches.steps
        compiled: Callable[[Any], Any] = torch.compile if recipe.compile else lambda model: model
        teacher = None if self.teacher is None else compiled(self.teacher)
        called = replace(self.given, teacher=teacher, student=compiled(network))
        kept = None
        if recipe.cache and self.losses is not None and teacher is not None:
            kept = self._teacher_logits(teacher)
        objective = Objective(called, self.losses, self.processes, self.bf16, kept)
        done, ramp = len(self.history) * steps, recipe.ramp_epochs * steps
        set_rate = create_schedule(self.optimizer, recipe, steps, done)
        pair = self.student, network
        return TrainingStep(*pair, objective, self.optimizer, set_rate, self.average, done, ramp)

    def _teacher_logits(self, teacher: nn.Module) -> Tensor:
        """Return the teacher's logits for all training images, N x K."""
        parts = torch.split(torch.arange(self.batches.count), self.recipe.batch_size)
        found = predict(teacher, self.data, self.train.batches(parts), self.bf16)
        return torch.cat([logits.float() for logits, _ in found])

    def run(self, on_steps: Sequence[OnStep], on_epochs: Sequence[OnEpoch]) -> None:
        """Train to the last epoch, and call the functions after each update and each epoch."""
        loss = partial(example_loss, self.student, self.data, self.device)
        with self.processes.parallel(self.student, loss) as network:
            step = self.create_step(network)
            while not self.finished:
                row = self._run_epoch(step, on_steps)
                for on_epoch in on_epochs:
                    on_epoch(row)

    def _run_epoch(self, step: TrainingStep, on_steps: Sequence[OnStep]) -> EpochRow:
        """Train on the training images once, test, and write a checkpoint.

        Raises:
            FloatingPointError: A loss or a weight is not finite.
        """
        start, steps = time.perf_counter(), self.batches.steps
        total = self._train(step, on_steps)
        trained = time.perf_counter() - start
        row = {"epoch": len(self.history) + 1, **{n: value / steps for n, value in total.items()}}
        row.update(self._test(task_of(self.data)))
        row["lr"] = step.rate
        row["seconds"] = time.perf_counter() - start
        row["images_per_second"] = steps * self.batches.size / trained
        self.history.append(row)
        if self.out is not None and self.processes.main:
            notes = {**self.start.notes, _BY_CLASS: self.by_class}
            checkpoint.save(self.out, self.settings, self._parts(), self.history, notes)
        return row

    def _train(self, step: TrainingStep, on_steps: Sequence[OnStep]) -> Counter[str]:
        """Do the updates of an epoch; return the sums of the losses and accuracies."""
        seed = derive_seed(self.recipe.seed, len(self.history))
        _seed(seed + self.processes.rank, self.device)
        self.student.train()
        total: Counter[str] = Counter()
        waiting: deque[tuple[int, dict[str, Tensor]]] = deque()
        last = self.history[-1] if self.history else {}
        for parts in self.batches.epoch(self.train, seed):
            values = step(parts)
            waiting.append((step.updates, values))
            while len(waiting) > LAG.get(self.device.type, 0):
                total.update(self.numbers(*waiting.popleft()))
            for on_step in on_steps:
                on_step(step.updates, self.batches.steps * self.recipe.epochs, last)
        for each in waiting:
            total.update(self.numbers(*each))
        for name, value in self.student.state_dict().items():
            if not torch.isfinite(value).all():
                raise self._not_finite(name, step.updates)
        return total

    def numbers(self, update: int, values: dict[str, Tensor]) -> dict[str, float]:
        """Read the values of an update from the device.

        Raises:
            FloatingPointError: One is not finite.
        """
        numbers = dict(zip(values, torch.stack(list(values.values())).tolist(), strict=True))
        bad = [name for name, number in numbers.items() if not math.isfinite(number)]
        if bad:
            raise self._not_finite(" and ".join([n for n in bad if n != "loss"] or bad), update)
        return numbers

    def _not_finite(self, what: str, update: int) -> FloatingPointError:
        kept = f"; the last good state is in {self.out}" if self.out and self.history else ""
        when = f"at step {update}, in epoch {len(self.history) + 1}"
        return FloatingPointError(f"{what} not finite {when}; try a lower lr{kept}")

    def _test(self, task: Task) -> dict[str, float]:
        """Return the results on the test images, in %; each process tests its share.

        Without labels the result is the share of images that student and teacher classify alike.
        """
        assert self.data.test is not None
        model = self.student if self.average is None else self.average.module
        indices = torch.arange(len(self.data.test))[self.processes.rank :: self.processes.count]
        bf16 = self.bf16 and task.bf16
        counts = sum_counts(model, self.data, self.test, indices, bf16)
        counts = task.combine(self.processes.collect(counts))
        results = task.results(counts, len(self.data.classes))
        if len(self.history) + 1 == self.recipe.epochs:
            self.by_class = dict(table(task, results, self.data.classes))
        agreement = {"test_agreement": results.means[task.result]}
        return agreement if self.data.tests_agreement else results.means

    def _settings(self) -> dict[str, Any]:
        """Return what a resumed training must share."""
        size = self.teacher.size if isinstance(self.teacher, ResizedInput) else None
        return {
            **self.recipe.as_dict(),
            "data": self.data.name,
            "classes": len(self.data.classes),
            "image_size": self.data.size,
            "training_images": self.batches.count,
            "start": self.start.place,
            "teacher_classes": self.given.classes,
            "teacher_image_size": size,
            "taught": self.teacher is not None,
            "teacher_checksum": checkpoint.checksum(self.teacher) if self.teacher else None,
        }

    def _parts(self) -> checkpoint.Stateful:
        """Return what has a state, by its name in the checkpoint."""
        average = None if self.average is None else self.average.module
        parts: dict[str, Any] = {"student": self.student, "optimizer": self.optimizer}
        more = {"losses": self.losses, "average": average}
        return {**parts, **{name: part for name, part in more.items() if part is not None}}

    def finish(self) -> None:
        """Give the student the averaged weights, if there are any, and write the weights."""
        if self.average is not None:
            self.student.load_state_dict(self.average.module.state_dict())
        self.student.eval()
        if self.out is not None and self.processes.main:
            state_dicts.save_weights(self.student, self.out / checkpoint.WEIGHTS)
        self.processes.wait()


def _seed(seed: int, device: torch.device) -> None:
    """Seed the random numbers of dropout."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
