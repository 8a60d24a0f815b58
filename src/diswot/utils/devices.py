"""Devices by the names that torch gives them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from diswot.errors import UserError

CPU = "cpu"
ALL = "all"


def get_device(name: str) -> torch.device:
    """Return the device of a name; a `UserError` if this machine has no such device."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"no such device: {name!r}; devices are cpu, cuda, cuda:1, ...") from error
    here = available()
    if name not in here and name not in {one.partition(":")[0] for one in here}:
        raise UserError(f"no device {name} here; there is: {', '.join(here)}")
    return device


def available() -> list[str]:
    """List the names of the processor and of each accelerator that torch sees."""
    return [CPU, *accelerators()]


def accelerators() -> list[str]:
    """List the full names of the accelerators, such as `cuda:0`."""
    kind = torch.accelerator.current_accelerator()
    return [f"{kind}:{number}" for number in range(torch.accelerator.device_count())]


def parse_devices(text: str) -> tuple[str, ...]:
    """Read device names that are separated by commas, or `all` for all accelerators.

    Raises:
        UserError: This machine lacks one of the devices, or they are of several kinds.
    """
    names = accelerators() if text.strip() == ALL else [name.strip() for name in text.split(",")]
    if not names:
        raise UserError("no GPU here for torch to compute on; take --device cpu")
    kind(names)
    return tuple(str(get_device(name)) for name in names)


def kind(names: Sequence[str]) -> str:
    """Return the common kind of some devices, such as `cpu` or `cuda`.

    Raises:
        UserError: The kinds differ, so that scores would depend on the device.
    """
    kinds = sorted({name.partition(":")[0] for name in names})
    if len(kinds) > 1:
        raise UserError(f"score on devices of one kind, not on {' and '.join(kinds)}")
    return kinds[0]


@contextmanager
def exact(device: torch.device) -> Iterator[None]:
    """Compute CUDA convolutions deterministically in full float32 within a `with` block.

    By default torch rounds the inputs of convolutions to TF32, with ten bits of mantissa.
    """
    if device.type != "cuda":
        yield
        return
    backend = torch.backends.cudnn
    with backend.flags(enabled=backend.enabled, deterministic=True, allow_tf32=False):
        yield


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Compute with a number of threads within a `with` block; None leaves it as it is."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(count or before)
        yield
    finally:
        torch.set_num_threads(before)
