"""Joules from counters of a made-up machine."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from diswot.training import energy
from diswot.training.energy import meter

CPU = torch.device("cpu")


def package(root: Path, name: str, value: int, largest: int = 10_000_000) -> Path:
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "energy_uj").write_text(f"{value}\n")
    (folder / "max_energy_range_uj").write_text(f"{largest}\n")
    return folder


def test_packages_are_added_up_and_counters_start_anew(tmp_path: Path) -> None:
    first = package(tmp_path, "intel-rapl:0", 1_000_000)
    second = package(tmp_path, "intel-rapl:1", 9_500_000)
    package(tmp_path, "intel-rapl:0:0", 5)  # a part of a package, not to be counted twice
    joules = meter(CPU, tmp_path)
    assert joules is not None and joules() == 0
    (first / "energy_uj").write_text("3000000")
    assert joules() == pytest.approx(2)
    (second / "energy_uj").write_text("500000")
    assert joules() == pytest.approx(3, abs=1e-5)
    (first / "energy_uj").unlink()
    assert joules() == pytest.approx(3, abs=1e-5)


def test_what_cannot_be_read_is_not_known(tmp_path: Path) -> None:
    assert meter(CPU, tmp_path) is None and meter(CPU, tmp_path / "none") is None
    (package(tmp_path, "intel-rapl:0", 1) / "energy_uj").write_text("secret")
    assert meter(CPU, tmp_path) is None


def test_a_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NVML counts millijoules."""
    counted = iter([5_000, 7_500])
    library = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: next(counted),
    )
    monkeypatch.setitem(sys.modules, "pynvml", library)
    facts = SimpleNamespace(uuid="1-2-3")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: facts)
    joules = meter(torch.device("cuda", 0), tmp_path)
    assert joules is not None and joules() == pytest.approx(2.5)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert energy.meter(torch.device("cuda", 0), tmp_path) is None
