"""The benchmark of the whole method: its budgets, picks, trainings and tables."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from diswot.costs.budget import Costs
from diswot.data.dataset import Dataset, Split
from diswot.data.registry import create_dataset
from diswot.models.cifar_resnet import CifarResNet
from diswot.models.registry import create_teacher


@pytest.fixture
def script(imported: Callable[[str], Any]) -> Any:
    return imported("headline")


@pytest.fixture
def shared(imported: Callable[[str], Any]) -> Any:
    return imported("short_training")


def tiny(script: Any) -> Any:
    """Return a cell of 8 pixels and 3 classes, whose budget is that of ResNet-20."""
    network = partial(CifarResNet, (3, 3, 3), 3)
    cell = script.CELLS["64 pixels"]
    return replace(cell, size=8, classes=(0, 1, 2), hand=network, budget=network)


def test_designs_by_hand_are_within_the_budget(script: Any) -> None:
    for cell in script.CELLS.values():
        assert cell.limit.check(Costs(cell.hand(), cell.shape))[0] is None
    quarter = script.CELLS["quarter"]
    assert (quarter.limit.max_params, quarter.limit.max_macs) == (273_124 / 4, 40_813_824 / 4)
    half_width = CifarResNet((3, 3, 3), 20, (8, 16, 32))
    assert quarter.limit.check(Costs(half_width, quarter.shape))[0] is not None


def test_random_student_needs_most_of_the_budget(script: Any) -> None:
    cell = replace(tiny(script), share=4.0)
    where = cell.space, cell.build, cell.shape, cell.limit
    students = [script.random_student(*where, number) for number in (0, 1)]

    assert students[0] != students[1]
    for params in students:
        excess, margins = cell.limit.check(Costs(cell.build(params), cell.shape))
        assert excess is None and max(margins.values()) >= -0.2


def test_students_of_diswot_end_as_wide_as_the_teachers_classifier(
    script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = replace(tiny(script), size=32)
    monkeypatch.setitem(script.CELLS, "tiny", cell)
    images = create_dataset("noise", num_classes=3, img_size=32)
    place = script.LoadedCell("tiny", images, create_teacher(script.TEACHER, 3))

    params, scored = script.found(place, "diswot", 2)

    assert scored == 2
    model = cell.build(params)
    assert model.fc.in_features == 256
    assert cell.limit.check(Costs(model, cell.shape))[0] is None


def test_the_widest_uniform_sub_network(script: Any) -> None:
    """One block a stage at half width fits; with two blocks in the last stage it does not."""
    cell = script.CELLS["quarter"]
    params = next(script.widest_uniforms(cell.macs_within))

    assert params == {
        **{f"depth_{i}": 1 for i in (1, 2, 3)},
        **{f"width_{i}": 0.5 for i in (1, 2, 3)},
        "width_stem": 1.0,
    }
    deeper = cell.build({**params, "depth_3": 2})
    assert cell.limit.check(Costs(deeper, cell.shape))[0] is not None


def picked(name: str, params: Any, **others: Any) -> dict[str, Any]:
    facts = {"model_params": 68_000, "macs": 9_100_000, "layers": 20, "latency_ms": 1.5}
    row = {"cell": "quarter", "pick": name, "params": params, "scored": 5, "search_seconds": 2.0}
    return {**row, **facts, "fits": 0.25, **others}


PICKED = [
    picked("by hand", None, fits=1.0),
    picked("default", {"stem": 8}),
    picked("params", {"stem": 8}),
    picked("random 0", {"stem": 16}, layers=30),
    picked("random 1", {"stem": 32}),
]


def options(**changes: Any) -> argparse.Namespace:
    return argparse.Namespace(
        **{
            "seeds": 2,
            "cells": ["quarter"],
            "picks": [],
            "ways": ["distilled", "alone"],
            "epochs": 3,
            "images": 7,
        }
        | changes
    )


def test_a_student_of_two_picks_is_trained_once(script: Any) -> None:
    """Two ways of three students and of two random ones, the former with two seeds."""
    made = script.trainings(PICKED, options())
    keys = [tuple(key.values()) for _, key in made]

    assert len(keys) == 2 * (2 * 3 + 2)
    assert len(set(keys)) == 2 * (2 * 2 + 2)
    assert list(script.trainings(PICKED, options(cells=["64 pixels"]))) == []
    assert len(list(script.trainings(PICKED, options(picks=["params"], ways=["alone"])))) == 2
    assert set(script.shared([1, 2, 3], "0/2")) | set(script.shared([1, 2, 3], "1/2")) == {1, 2, 3}


def test_table(script: Any) -> None:
    def trained(architecture: str, accuracy: float, seed: int = 0, **others: str) -> dict[str, str]:
        row = {"cell": "quarter", "architecture": architecture, "way": "distilled", "epochs": "3"}
        facts = {
            "images": "7",
            "start": "fresh",
            "teacher": "85.00",
            "torch": "2",
            "processor": "P",
        }
        numbers = {"seed": str(seed), "accuracy": str(accuracy), "cpu_seconds": "100"}
        return {**row, **facts, **numbers, **others}

    rows = [
        trained("by hand", 60, start="teacher"),
        trained("by hand", 62, 1, start="teacher", cpu_seconds="300"),
        trained("by hand", 50, way="alone"),
        trained('{"stem": 16}', 40),
        trained('{"stem": 32}', 44),
    ]
    text = script.table(PICKED, rows, {"quarter": "ResNet"})

    assert "quarter: 3 epochs, 7 training images of each class; the teacher has 85.00 %" in text
    sizes = "68 K | 9.1 M | {} | 1.50 | 5 | 2"
    hand = "100 % | teacher | 61.00 ± 1.41 | 2 | 50.00 | 1 | 200"
    assert f"| by hand: ResNet | {sizes.format(20)} | {hand} |" in text
    assert f"| default | {sizes.format(20)} | 25 % | - | - | 0 | - | 0 | - |" in text
    students = (
        f"| random | {sizes.format('20 to 30')} | 25 % | fresh | 42.00 ± 2.83 | 2 | - | 0 | 100 |"
    )
    assert students in text
    assert text.endswith("torch 2, P")


def test_images_of_some_classes(shared: Any) -> None:
    """Image i has the value i, and the class i % 4."""
    pixels = torch.arange(8, dtype=torch.uint8).view(8, 1, 1, 1).expand(8, 3, 2, 2)
    split = Split(torch.arange(8) % 4, lambda indices: pixels[torch.as_tensor(indices)])
    data = Dataset("d", ("a", "b", "c", "d"), 2, (0.5,) * 3, (0.5,) * 3, split, split)

    some = shared.of_classes(data, (1, 3))

    assert some.classes == ("b", "d")
    assert some.train.labels.tolist() == [0, 0, 1, 1]
    assert some.train.read([0, 1, 2, 3])[:, 0, 0, 0].tolist() == [1, 5, 3, 7]
    assert shared.few(some.train, 1).labels.tolist() == [0, 1]


def test_teacher_of_some_classes(shared: Any, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    whole = create_teacher(shared.TEACHER, 100).eval()
    save_file(whole.state_dict(), tmp_path / "t.safetensors")
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    with torch.no_grad():
        logits = shared.trained_teacher(tmp_path / "t.safetensors", (5, 90))(x)
        torch.testing.assert_close(logits, whole(x)[:, [5, 90]])
