"""The command, the versions and the hardware of this process, for records of a run."""

from __future__ import annotations

import platform
import re
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("diswot", "torch", "torchvision", "timm", "optuna", "numpy")


def provenance() -> dict[str, Any]:
    """Return what a result depends on beside its configuration."""
    return {"command": command(), "versions": versions(), "hardware": hardware()}


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages on which results depend."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def hardware() -> dict[str, str | int]:
    """Return the machine, the processor, the number of threads, and the GPU if there is one."""
    import torch

    facts: dict[str, str | int] = {
        "machine": platform.machine(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
    }
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


def _processor() -> str:
    """Return the name of the processor from Linux, or else from Python."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def command() -> list[str]:
    """Return the command line of this process, with passwords masked."""
    return ["diswot", *map(without_passwords, sys.argv[1:])]


def without_passwords(text: str) -> str:
    """Replace the passwords in all URLs of a text by asterisks."""
    text = re.sub(r"(://[^:/@\s]*):\S*@", r"\1:***@", text)
    return re.sub(r"([?&]password=)[^&\s]*", r"\1***", text)
