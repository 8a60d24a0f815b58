"""Evaluation of a network: whether it fits the data, its outputs and its accuracy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from diswot.data.dataset import Dataset, Split
from diswot.data.loader import BatchSource, StreamedImages
from diswot.errors import UserError
from diswot.observation.losses import mean_loss
from diswot.tasks.registry import task_of
from diswot.tasks.task import Fit, Network

BATCH = 500
_PART = 100  # images of a test that are in memory at once


def sum_counts(
    model: nn.Module, data: Dataset, source: BatchSource, indices: Tensor, bf16: bool = False
) -> Tensor:
    """Return what the data's task counts on some images, in evaluation mode, which is undone."""
    training = model.training
    model.eval()
    batches = source.batches(torch.split(indices, batch_size(data)))
    task = task_of(data)
    counts = [task.count(*each) for each in predict(model, data, batches, bf16)]
    model.train(training)
    return task.combine(counts)


def batch_size(data: Dataset) -> int:
    """Return how many test images are in memory at once: as many pixels as 500 of 32 x 32."""
    if data.test is None or data.test.annotations is None:
        return BATCH
    return max(1, BATCH * 32 * 32 // torch.Size(data.image_shape[1:]).numel())


def measure_result(model: nn.Module, data: Dataset) -> float:
    """Return the result on all test images, in %: accuracy, mean IoU, or mean average precision."""
    task = task_of(data)
    return task.results(count_all(model, data), len(data.classes)).means[task.result]


def count_all(
    model: nn.Module, data: Dataset, on_read: Callable[[int], None] = lambda done: None
) -> Tensor:
    """Return what the data's task counts on all test images, in evaluation mode.

    The network is on the CPU, and its mode comes back. After each part `on_read` is called with the
    number of images tested so far.
    """
    split = data.test
    assert split is not None
    task, done, counts = task_of(data), 0, []
    parts = torch.split(torch.arange(len(split)), min(_PART, batch_size(data)))
    batches = ((split.read(part.tolist()), split.targets(part.tolist())) for part in parts)
    with frozen(model):
        for predicted, targets in predict(model, data, batches):
            counts.append(task.count(predicted, targets))
            done += len(targets)
            on_read(done)
    return task.combine(counts)


def accuracy_interval(accuracy: float, images: int) -> tuple[float, float]:
    """Return the 95 % interval of an accuracy, in %, by Wilson's score (Wilson, JASA 1927).

    It holds for the images as a random sample. It says nothing of the seeds of the training.
    """
    from scipy.stats import binomtest  # which takes long to load

    found = binomtest(round(accuracy / 100 * images), images).proportion_ci(0.95, "wilson")
    return 100 * float(found.low), 100 * float(found.high)


def overlap(first: tuple[float, float] | None, second: tuple[float, float] | None) -> bool:
    """Say whether two intervals have a number in common; false without one of them."""
    if first is None or second is None:
        return False
    return first[0] <= second[1] and second[0] <= first[1]


def labelled_by_model(split: Split, model: nn.Module, data: Dataset) -> Split:
    """Return the images of a split, labelled by a network on any device, whose mode comes back."""
    device = next(model.parameters()).device
    source = StreamedImages(split, device)
    parts = torch.split(torch.arange(len(split)), _PART)
    with frozen(model):
        classes = [z.argmax(1).cpu() for z, _ in predict(model, data, source.batches(parts))]
    return Split(torch.cat(classes), split.read)


@torch.no_grad()
def predict(
    model: Network,
    data: Dataset,
    batches: Iterable[tuple[Tensor, Tensor]],
    bf16: bool = False,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield predictions, as the data's task makes them, and labels for batches of bytes."""
    task = task_of(data)
    for images, labels in batches:
        batch = data.normalise(images).contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
            predicted = task.predictions(task.outputs(model, batch))
        yield predicted, labels


@contextmanager
def frozen(model: nn.Module | None) -> Iterator[None]:
    """Hold a network in evaluation mode without gradients; restore each module at the end."""
    modes = [(module, module.training) for module in model.modules()] if model else []
    needed = [(weight, weight.requires_grad) for weight in model.parameters()] if model else []
    try:
        if model is not None:
            model.eval().requires_grad_(False)
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for weight, need in needed:
            weight.requires_grad_(need)


def check_gradient(model: nn.Module, data: Dataset, device: torch.device) -> None:
    """Check that the loss of a student in evaluation mode has a gradient in its weights.

    Raises:
        UserError: It has none.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    if not weights:
        return  # the optimizer refuses it
    with torch.random.fork_rng(devices=[]):
        try:
            loss = example_loss(model, data, device)
            if loss.requires_grad:
                torch.autograd.grad(loss, weights, allow_unused=True)
        except Exception as error:  # a user's network may raise anything
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"the student cannot be trained here: {reason}") from error
    if not loss.requires_grad:
        raise UserError(
            "the student cannot be trained: its outputs have no gradient, as under "
            "torch.no_grad or after detach"
        )


def example_loss(model: nn.Module, data: Dataset, device: torch.device) -> Tensor:
    """Return the loss of a network, in any mode, for two blank images, with its gradient."""
    images = torch.zeros(2, *data.image_shape, device=device)
    return mean_loss(model, images, task_of(data).example(data).to(device))


@torch.no_grad()
def check_fit(
    role: str,
    model: nn.Module,
    data: Dataset,
    device: torch.device,
    classes: Sequence[int] | None = None,
) -> None:
    """Check that a network in evaluation mode gives what the task predicts for the data's images.

    Args:
        role: What an error calls the network.
        model: On the device.
        data: Names the shape of an image and the classes.
        device: Any device.
        classes: Class of the data of each of the network's outputs. Default: those of the data.

    Raises:
        UserError: The network does not.
    """
    task = task_of(data)
    try:
        outputs = task.outputs(model, torch.zeros(2, *data.image_shape, device=device))
    except Exception as error:  # a user's network may raise anything
        reason = " ".join(str(error).split())
        what = f"the {role} cannot take images of shape {data.image_shape}"
        raise UserError(f"{what}: {reason}") from error
    task.check(Fit(role, model, data, classes), outputs)
