"""What a result depends on besides the command: versions and hardware."""

from __future__ import annotations

import platform
import re
import sys
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("diswot", "torch", "torchvision", "timm", "optuna", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that figures depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def hardware() -> dict[str, str | int]:
    """The processor or the card in use."""
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
    """The processor's name where Linux tells it, or what Python knows."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def command() -> list[str]:
    """The command line of this process, without passwords."""
    return ["diswot", *map(masked, sys.argv[1:])]


def masked(text: str) -> str:
    """A text without the passwords of the addresses in it."""
    text = re.sub(r"(://[^:/@\s]*):\S*@", r"\1:***@", text)
    return re.sub(r"([?&]password=)[^&\s]*", r"\1***", text)
