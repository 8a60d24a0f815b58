"""One training in several processes: the same numbers as in one, but for rounding.

Each process sees its share of every batch. What the loss looks at is gathered, so that relations
among samples are those of the whole batch; batch normalisation takes the whole batch's
statistics. Each process computes the whole loss, so that gradients come out as many times too
large as there are processes; their mean over the processes is the true one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.functional import batch_norm
from torch.nn.modules.batchnorm import _BatchNorm

from diswot.errors import UserError
from diswot.observation.observe import Observation


class Processes:
    """This process among all that train together, as Accelerate was told of them.

    Attributes:
        device: This process's.
        rank: Its number.
        count: Of all processes.
        main: Whether it is the one that writes.
    """

    def __init__(self) -> None:
        accelerator = Accelerator()
        self.device: torch.device = accelerator.device
        self.rank: int = accelerator.process_index
        self.count: int = accelerator.num_processes
        self.main: bool = accelerator.is_main_process
        self._wait = accelerator.wait_for_everyone

    def wait(self) -> None:
        """Until all processes are here."""
        self._wait()

    def share(self, size: int) -> slice:
        """This process's part of a batch."""
        each = size // self.count
        return slice(self.rank * each, (self.rank + 1) * each)

    def sum(self, value: Tensor) -> Tensor:
        """Over all processes."""
        return self._sum(value) if self.count > 1 else value

    def _sum(self, value: Tensor) -> Tensor:
        total: Tensor = all_reduce(value.contiguous())  # type: ignore[no-untyped-call]
        return total

    def gather(self, value: Tensor) -> Tensor:
        """The whole batch, from each process's share; gradients flow back."""
        if self.count == 1:
            return value
        shares = value.new_zeros(self.count, *value.shape)
        shares[self.rank] = value
        return self._sum(shares).flatten(0, 1)

    def gathered(self, seen: Observation) -> Observation:
        """An observation of the whole batch."""
        if self.count == 1:
            return seen
        values: dict[str, Any] = {each.name: getattr(seen, each.name) for each in fields(seen)}
        for name, value in values.items():
            if name == "class_gradient":
                values[name] = self._sum(value) / self.count
            elif isinstance(value, tuple):
                values[name] = tuple(map(self.gather, value))
            elif value is not None and value.numel():
                values[name] = self.gather(value)
        return replace(seen, **values)

    def average(self, parameters: Iterable[nn.Parameter]) -> None:
        """Put the mean over all processes in the place of each gradient."""
        if self.count == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        with torch.no_grad():
            flat = self._sum(torch.cat([each.flatten() for each in gradients])) / self.count
            sizes = [each.numel() for each in gradients]
            for gradient, mean in zip(gradients, torch.split(flat, sizes), strict=True):
                gradient.copy_(mean.view_as(gradient))

    @contextmanager
    def whole_statistics(self, model: nn.Module) -> Iterator[None]:
        """Batch normalisation by the statistics of all processes' images, while it lasts."""
        norms = [m for m in model.modules() if isinstance(m, _BatchNorm)] if self.count > 1 else []
        for norm in norms:
            vars(norm)["forward"] = partial(_normalised, self, norm)
        try:
            yield
        finally:
            for norm in norms:
                del vars(norm)["forward"]

    def check(self, size: int, parts: int) -> None:
        """Refuse batches that cannot be cut evenly.

        Raises:
            UserError: `size` images do not make `parts` parts for each process.
        """
        if size % (parts * self.count):
            shared = f"{parts} parts" + (f" for {self.count} processes" if self.count > 1 else "")
            raise UserError(f"a batch of {size} images cannot be cut evenly into {shared}")


def _normalised(processes: Processes, norm: _BatchNorm, images: Tensor) -> Tensor:
    """What `norm` gives in one process for the whole batch: this process's share of it."""
    if not norm.training and norm.running_mean is not None:
        mean, variance = norm.running_mean, norm.running_var
        return batch_norm(images, mean, variance, norm.weight, norm.bias, False, 0, norm.eps)
    axes = [0, *range(2, images.ndim)]
    single = images.float()
    shape = (1, -1, *[1] * (images.ndim - 2))
    mean = processes.sum(single.mean(axes)) / processes.count
    centred = single - mean.view(shape)
    variance = processes.sum(centred.square().mean(axes)) / processes.count
    if norm.training and norm.running_mean is not None:
        size = processes.count * images.numel() // images.shape[1]
        _track(norm, mean.detach(), variance.detach() * size / max(size - 1, 1))
    scale = (variance + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    made: Tensor = centred * scale.view(shape)
    if norm.bias is not None:
        made = made + norm.bias.view(shape)
    return made.to(images.dtype)


@torch.no_grad()
def _track(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Move the running statistics as torch does."""
    share = norm.momentum
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        share = 1 / float(norm.num_batches_tracked) if share is None else share
    assert norm.running_mean is not None and norm.running_var is not None and share is not None
    norm.running_mean.lerp_(mean, share)
    norm.running_var.lerp_(variance, share)
