"""The state that a model is put into while it is measured, and how it is left as it was found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from diswot.errors import UserError
from diswot.utils.compat import (
    BatchNorm,
    BatchNormBase,
    own_buffers,
    own_parameters,
    uncompiled,
)

_PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel)
_BLOCK = 16  # channels that oneDNN computes together with AVX-512
_SEED = 0  # of what a model draws while it is measured
_STATISTICS = {"running_mean", "running_var"}  # buffers of a batch norm


def require_network(role: str, value: object) -> None:
    """Refuse a name, or anything else that is no network, as a teacher or a student.

    Raises:
        UserError: It is none.
    """
    if not isinstance(value, nn.Module):
        made = f"; make it: diswot.create_teacher({value!r}, num_classes=...)"
        hint = made if isinstance(value, str) else ""
        raise UserError(f"the {role} must be a network, not a {type(value).__name__}{hint}")


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the network inside one that is compiled or parallel over processes."""
    if isinstance(model, _PARALLEL):
        return unwrapped(model.module)
    inner = uncompiled(model)
    return model if inner is None else unwrapped(inner)


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Compute in the data types of the tensors on a device, also inside `torch.autocast`."""
    known = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if known else nullcontext()


@contextmanager
def recordable(images: Tensor, targets: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Turn gradients off such that an inner block may turn them on, also in inference mode.

    Yields:
        The images and targets. They are copies if they were made in `torch.inference_mode`, since
        autograd rejects such tensors.
    """
    with torch.inference_mode(False), torch.no_grad():
        yield _without_inference(images), _without_inference(targets)


@contextmanager
def hooked(modules: Iterable[nn.Module], hook: Callable[..., Any]) -> Iterator[None]:
    """Call a function as a forward hook of torch after the pass of each module."""
    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(module.register_forward_hook(hook))
        yield


@contextmanager
def replaced(
    methods: Mapping[nn.Module, Callable[..., Any]], name: str = "forward"
) -> Iterator[None]:
    """Give modules another method of a name; afterwards each module has its own again."""
    before = {module: vars(module).get(name) for module in methods}
    try:
        for module, method in methods.items():
            vars(module)[name] = method
        yield
    finally:
        for module, own in before.items():
            del vars(module)[name]
            if own is not None:
                vars(module)[name] = own


@contextmanager
def restored_modes(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Put each module back into training or evaluation mode, as it was, after the block."""
    modes = [module.training for module in modules]
    try:
        yield
    finally:
        set_modes(modules, modes)


@contextmanager
def sliced_shortcuts(model: nn.Module) -> Iterator[None]:
    """Run strided 1x1 convolutions of few channels on a CPU as a slice and an unstrided one.

    The result is the same. For channels_last maps oneDNN computes the weight gradient of such a
    convolution in too little memory and ends the process (oneDNN issue 6035, in torch 2.14).
    """
    narrow = [
        module
        for module in model.modules()
        if type(module) is nn.Conv2d
        and module.in_channels < _BLOCK
        and module.kernel_size == (1, 1)
        and module.stride != (1, 1)
        and module.padding == (0, 0)
        and module.weight.device.type == "cpu"
    ]
    with replaced({convolution: partial(_sliced, convolution) for convolution in narrow}):
        yield


def _sliced(convolution: nn.Conv2d, maps: Tensor) -> Tensor:
    """Take the positions that the convolution reads, then map their channels."""
    rows, columns = convolution.stride
    read = maps[..., ::rows, ::columns]
    weight, bias = convolution.weight, convolution.bias
    return nn.functional.conv2d(read, weight, bias, groups=convolution.groups)


def _without_inference(tensor: Tensor) -> Tensor:
    return tensor.clone() if tensor.is_inference() else tensor


@contextmanager
def measuring(model: nn.Module) -> Iterator[None]:
    """Put a model into measuring mode: batch statistics, no dropout, no stochastic depth.

    A model that draws random numbers, as a detector that samples proposals, draws the same ones
    each time. Afterwards each module has the mode, running statistics and buffers that it had
    before, and the global random state is as before, also if the block raises.

    Modes are set in the modules' `__dict__`, since `Module.__setattr__` takes longer than the
    layers of a small network. If a module overrides `train()`, the method is called before and
    after: some modules drop caches there that were filled in evaluation mode.
    """
    modules = list(model.modules())
    norms = [m for m in modules if isinstance(m, BatchNormBase)]
    before = [(norm.track_running_stats, dict(own_buffers(norm))) for norm in norms]
    overridden = any(type(m).train is not nn.Module.train for m in modules)
    own = (p for m in modules for p in own_parameters(m).values() if p is not None)
    devices = {p.device.index for p in own if p.is_cuda}
    with torch.random.fork_rng(devices=sorted(devices)), restored_modes(modules):
        try:
            _seed(devices)
            if overridden:
                model.eval()
            set_modes(modules, [isinstance(module, BatchNormBase) for module in modules])
            for norm, (_, buffers) in zip(norms, before, strict=True):
                vars(norm)["track_running_stats"] = False
                own_buffers(norm).update(dict.fromkeys(_STATISTICS & buffers.keys()))
            yield
        finally:
            if overridden:
                model.train()
            for norm, (tracked, buffers) in zip(norms, before, strict=True):
                vars(norm)["track_running_stats"] = tracked
                own_buffers(norm).update(buffers)


def _seed(devices: Iterable[int]) -> None:
    """Seed the random generators of the CPU and of some GPUs alone."""
    torch.default_generator.manual_seed(_SEED)
    for device in devices:
        torch.cuda.default_generators[device].manual_seed(_SEED)


@torch.no_grad()
def estimate_statistics(model: nn.Module, batches: Iterable[Tensor]) -> int:
    """Estimate the running statistics of all batch norms again; return the number of images.

    The statistics are the plain mean over the batches. Only batch norms are in training mode.
    Afterwards each module has its mode, and the global random state is as before. Without batch
    norms or batches nothing changes.
    """
    norms = [m for m in model.modules() if isinstance(m, BatchNorm) and m.running_mean is not None]
    momenta = [norm.momentum for norm in norms]
    device = next((each.device for each in model.parameters()), torch.device("cpu"))
    images = 0
    with restored_modes([*model.modules()]):
        model.eval()
        try:
            for batch in batches if norms else ():
                for norm in norms if not images else ():
                    norm.reset_running_stats()
                    norm.momentum = None
                    norm.train()
                model(batch.to(device))
                images += len(batch)
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
    return images


def set_modes(modules: Sequence[nn.Module], modes: Iterable[bool]) -> None:
    """Put modules into training mode, or into evaluation mode where False, without `train()`."""
    for module, mode in zip(modules, modes, strict=True):
        vars(module)["training"] = mode
