"""One update of a student by a batch of images."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from timm.utils import ModelEmaV3  # type: ignore[attr-defined]
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from diswot.training.batches import Part
from diswot.training.objective import Objective
from diswot.training.optimizer import SetRate


@dataclass
class TrainingStep:
    """The losses of a batch, their gradients and the update of the weights.

    What is called in training is `network`: the student, perhaps parallel over processes. The
    weights of the distances grow from zero for `ramp` updates. `rate` is that of the last update.
    """

    student: nn.Module
    network: nn.Module
    objective: Objective
    optimizer: Optimizer
    set_rate: SetRate
    average: ModelEmaV3 | None
    updates: int
    ramp: float = 0.0
    rate: float = 0.0

    def __call__(self, parts: list[Part]) -> dict[str, Tensor]:
        """Update the weights; return the losses by name and the accuracy in %, on the device."""
        values: dict[str, list[Tensor]] = {}
        self.optimizer.zero_grad()
        for number, part in enumerate(parts, 1):
            last = number == len(parts)
            with nullcontext() if last else self.objective.processes.no_sync(self.network):
                shown = self._backward(part, len(parts))
            for name, value in shown.items():
                values.setdefault(name, []).append(value.detach().float())
        if self.objective.losses is not None:
            self.objective.processes.average(self.objective.losses.parameters())
        self._update()
        return {name: torch.stack(each).mean() for name, each in values.items()}

    def _backward(self, part: Part, parts: int) -> dict[str, Tensor]:
        grown = min(1.0, (self.updates + 1) / self.ramp) if self.ramp else 1.0
        losses, correct = self.objective(part, grown)
        loss = torch.stack(list(losses.values())).sum()
        torch.autograd.backward(loss / parts)
        right = {} if correct is None else {"train_accuracy": 100 * correct.float().mean()}
        return {"loss": loss, **losses, **right}

    def _update(self) -> None:
        self.rate = float(self.optimizer.param_groups[0]["lr"])
        if clip := self.objective.recipe.clip_grad:
            groups = self.optimizer.param_groups
            clip_grad_norm_([weight for group in groups for weight in group["params"]], clip)
        self.optimizer.step()
        self.updates += 1
        self.set_rate(self.updates)
        if self.average is not None:
            self.average.update(self.student, self.updates)
