"""One training in several processes: the numbers of one process, up to rounding.

Each process sees its share of every batch. What the loss looks at is gathered, so that relations
among samples are those of the whole batch; batch normalisation takes the statistics of the whole
batch. Each process computes the whole loss, so that a gradient of the student is too large by the
number of processes; the mean over the processes, which DistributedDataParallel takes, is the true
gradient.

On GPUs, torch's SyncBatchNorm computes the statistics. It cannot run on a CPU; there this module
computes them, so that two processes on a CPU can be held to one in a test.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import fields, replace
from functools import partial
from typing import Any

import torch
import torch.distributed
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, gather_object
from torch import Tensor, nn
from torch.nn.functional import batch_norm

from diswot.errors import UserError
from diswot.observation.modes import replaced
from diswot.observation.observe import Observation
from diswot.utils.compat import BatchNorm


class Processes:
    """This process among all that Accelerate started; the main one of them writes the files."""

    def __init__(self) -> None:
        self._accelerator = Accelerator()
        self.device: torch.device = self._accelerator.device
        self.rank: int = self._accelerator.process_index
        self.count: int = self._accelerator.num_processes
        self.main: bool = self._accelerator.is_main_process
        if self.count > 1:
            atexit.unregister(_leave)
            atexit.register(_leave)

    @property
    def gpus(self) -> list[torch.device]:
        """The GPU of this process, whose random state is forked; empty on a CPU."""
        return [self.device] if self.device.type == "cuda" else []

    def wait(self) -> None:
        """Wait until all processes are here."""
        self._accelerator.wait_for_everyone()

    def no_sync(self, network: nn.Module) -> AbstractContextManager[None]:
        """Leave the gradients of a backward pass unaveraged, as for all parts but the last.

        The forward pass must be in the same block.
        """
        unsynchronized: AbstractContextManager[None] = self._accelerator.no_sync(network)
        return unsynchronized

    def share(self, size: int) -> Tensor:
        """Return the indices of this process's share of a batch.

        It holds as many images from the end of the batch as from its start: the images i and
        size - 1 - i, which mixup and cutmix mix, are in one process.
        """
        each = size // self.count
        head, tail = each - each // 2, each // 2
        first, last = self.rank * head, size - self.rank * tail
        return torch.cat((torch.arange(first, first + head), torch.arange(last - tail, last)))

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum over all processes."""
        return _sum(value) if self.count > 1 else value

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean over all processes; gradients flow back."""
        return self.sum(value) / self.count

    def collect(self, value: Tensor) -> list[Tensor]:
        """Return the values of all processes, whose first dimensions may differ, on the CPU."""
        found: list[Tensor] = gather_object([value.cpu()])
        return found

    def gather(self, value: Tensor) -> Tensor:
        """Return the whole batch from the shares of all processes; gradients flow back."""
        if self.count == 1:
            return value
        shares = value.new_zeros(self.count, *value.shape)
        shares[self.rank] = value
        return _sum(shares).flatten(0, 1)

    def gathered(self, seen: Observation) -> Observation:
        """Return the observation of the whole batch."""
        if self.count == 1:
            return seen
        values: dict[str, Any] = {each.name: getattr(seen, each.name) for each in fields(seen)}
        for name, value in values.items():
            if name == "class_gradient":
                values[name] = self.mean(value)
            elif isinstance(value, tuple):
                values[name] = tuple(map(self.gather, value))
            elif value is not None and value.numel():
                values[name] = self.gather(value)
        return replace(seen, **values)

    def average(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its mean over all processes."""
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad = self.mean(parameter.grad)

    @contextmanager
    def parallel(self, student: nn.Module, loss: Callable[[], Tensor]) -> Iterator[nn.Module]:
        """Yield the network to call in training; the student is a plain network again at the end.

        In several processes that network is a DistributedDataParallel around the student, with
        batch statistics over all processes. In one process it is the student itself.
        """
        if self.count == 1:
            yield student
            return
        self._accelerator.ddp_handler = DistributedDataParallelKwargs(
            find_unused_parameters=has_unused_weights(student, loss)
        )
        gpu = self.device.type == "cuda"
        with _sync_batch_norm(student) if gpu else self._whole_statistics(student):
            yield self._accelerator.prepare_model(student)

    def _whole_statistics(self, student: nn.Module) -> AbstractContextManager[None]:
        """Normalise by the statistics of all processes' images, on a CPU."""
        norms = (module for module in student.modules() if isinstance(module, BatchNorm))
        return replaced({norm: partial(_normalised, self, norm) for norm in norms})

    def check(self, size: int, parts: int) -> None:
        """Refuse batches that cannot be cut evenly.

        Raises:
            UserError: `size` images do not make `parts` equal parts for each process.
        """
        if size % (parts * self.count):
            shared = f"{parts} parts" + (f" for {self.count} processes" if self.count > 1 else "")
            raise UserError(f"a batch of {size} images cannot be cut evenly into {shared}")


def _leave() -> None:
    """Leave the process group at the exit, before its threads are torn down."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class _Sum(torch.autograd.Function):
    """The sum over all processes, whose gradient is the sum of all processes' gradients."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Tensor:
        return _sum(slopes[0])


def _sum(value: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(value)
    return total


def has_unused_weights(student: nn.Module, loss: Callable[[], Tensor]) -> bool:
    """Whether some weights have no influence on a loss, in the student's present mode."""
    weights = [weight for weight in student.parameters() if weight.requires_grad]
    with torch.enable_grad():
        slopes = torch.autograd.grad(loss(), weights, allow_unused=True)
    return any(slope is None for slope in slopes)


@contextmanager
def _sync_batch_norm(student: nn.Module) -> Iterator[None]:
    """Replace batch normalisation by torch's SyncBatchNorm; put the layers back at the end.

    Both hold the same weights and statistics, so that the layers that come back are trained.
    """
    modules = list(student.modules())
    plain = [(module, dict(module.named_children())) for module in modules]
    try:
        nn.SyncBatchNorm.convert_sync_batchnorm(student)  # type: ignore[no-untyped-call]
        yield
    finally:
        for module, children in plain:
            for name, child in children.items():
                module.register_module(name, child)


def _normalised(processes: Processes, norm: BatchNorm, images: Tensor) -> Tensor:
    """Normalise the share of this process as one process normalises the whole batch."""
    if not norm.training and norm.running_mean is not None:
        mean, variance = norm.running_mean, norm.running_var
        return batch_norm(images, mean, variance, norm.weight, norm.bias, False, 0, norm.eps)
    axes = [0, *range(2, images.ndim)]
    single = images.float()
    shape = (1, -1, *[1] * (images.ndim - 2))
    mean = processes.mean(single.mean(axes))
    centred = single - mean.view(shape)
    variance = processes.mean(centred.square().mean(axes))
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
def _track(norm: BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Move the running statistics as torch does."""
    share = norm.momentum
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        share = 1 / float(norm.num_batches_tracked) if share is None else share
    assert norm.running_mean is not None and norm.running_var is not None and share is not None
    norm.running_mean.lerp_(mean, share)
    norm.running_var.lerp_(variance, share)
