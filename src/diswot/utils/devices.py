"""Where to compute, by the names that torch has for devices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from diswot.errors import UserError

CPU = "cpu"
ALL = "all"


def get_device(name: str) -> torch.device:
    """The device of that name, on which one can compute here.

    Raises:
        UserError: There is none.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"no such device: {name!r}; one is cpu, cuda or cuda:1, say") from error
    here = available()
    if name not in here and name not in {one.partition(":")[0] for one in here}:
        raise UserError(f"no device {name} here; there is: {', '.join(here)}")
    return device


def available() -> list[str]:
    """The processor and each accelerator that torch sees."""
    return [CPU, *accelerators()]


def accelerators() -> list[str]:
    """The GPUs, or what there is of the kind, by their full names."""
    kind = torch.accelerator.current_accelerator()
    return [f"{kind}:{number}" for number in range(torch.accelerator.device_count())]


def several(text: str) -> tuple[str, ...]:
    """Read names with commas, or `all` for each accelerator.

    Raises:
        UserError: One is no device here, or there is none.
    """
    names = accelerators() if text.strip() == ALL else [name.strip() for name in text.split(",")]
    if not names:
        raise UserError("no GPU here for torch to compute on; take --device cpu")
    kind(names)
    return tuple(str(get_device(name)) for name in names)


def kind(names: Sequence[str]) -> str:
    """`cpu`, `cuda` and so on: of all of them.

    Raises:
        UserError: They differ, so that a score would depend on which device looked.
    """
    kinds = sorted({name.partition(":")[0] for name in names})
    if len(kinds) > 1:
        raise UserError(f"score on devices of one kind, not on {' and '.join(kinds)}")
    return kinds[0]


@contextmanager
def exact(device: torch.device) -> Iterator[None]:
    """Convolutions of CUDA in full float32, and the same each time, while it lasts.

    Torch lets them round to TF32, ten bits of mantissa, unless told otherwise.
    """
    if device.type != "cuda":
        yield
        return
    backend = torch.backends.cudnn
    with backend.flags(enabled=backend.enabled, deterministic=True, allow_tf32=False):
        yield
