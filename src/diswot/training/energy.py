"""Energy that the machine has used, where it can be read."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

RAPL = Path("/sys/class/powercap")  # Linux's counters of a processor's packages, in microjoules


def meter(device: torch.device, root: Path = RAPL) -> Callable[[], float] | None:
    """What tells the joules used since it was made, by all processor packages and the device.

    The processor's are those that Linux lets the user read (RAPL), the card's NVML's, through
    the package `nvidia-ml-py`. None where neither can be read. What else runs on the machine is
    counted too.
    """
    counters = [each for each in (*_packages(root), _card(device)) if each is not None]
    if not counters:
        return None
    return lambda: sum(counter() for counter in counters)


def _packages(root: Path) -> list[Callable[[], float] | None]:
    return [_package(folder) for folder in sorted(root.glob("intel-rapl:?"))]


def _package(folder: Path) -> Callable[[], float] | None:
    """A counter that starts anew at a maximum; it must be read once within that."""
    try:
        largest = int((folder / "max_energy_range_uj").read_text())
        last = int((folder / "energy_uj").read_text())
    except (OSError, ValueError):
        return None
    total = 0

    def joules() -> float:
        nonlocal last, total
        with suppress(OSError, ValueError):
            now = int((folder / "energy_uj").read_text())
            total, last = total + (now - last) % (largest + 1), now
        return total / 1e6

    return joules


def _card(device: torch.device) -> Callable[[], float] | None:
    if device.type != "cuda":
        return None
    try:
        import pynvml

        pynvml.nvmlInit()
        uuid = str(torch.cuda.get_device_properties(device).uuid)
        handle: Any = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        first = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except Exception:  # no such package, an old card, no rights: then it is not known
        return None
    return lambda: (pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) - first) / 1e3
