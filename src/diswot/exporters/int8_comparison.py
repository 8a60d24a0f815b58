"""Accuracy, latency and size of an INT8 ONNX file beside its float32 file, measured in one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diswot.costs.timing import spread, timed_in_turn
from diswot.data.dataset import Dataset, Split
from diswot.exporters.formats import onnx_function
from diswot.utils import environment

HARMFUL = 1.0  # points of accuracy, %
_PART = 50  # images of a pass

Spread = tuple[float, float, float]  # median, 10th and 90th percentile
Predictor = Callable[[Tensor], list[Tensor]]


@dataclass(frozen=True)
class FileMeasures:
    """Size, accuracy and latency of one ONNX file.

    Attributes:
        path: The file.
        size: Its size in bytes.
        accuracy: Share of the test images that it classifies right, in %.
        seconds: Seconds of one image on one CPU thread: median, 10th and 90th percentile.
    """

    path: Path
    size: int
    accuracy: float
    seconds: Spread

    def as_dict(self) -> dict[str, Any]:
        """Return the measurements as plain values."""
        seconds = _plain(self.seconds)
        size, accuracy = self.size, self.accuracy
        return {"file": str(self.path), "bytes": size, "accuracy": accuracy, "seconds": seconds}


@dataclass(frozen=True)
class Int8Comparison:
    """An INT8 file beside the float32 file that it was made from.

    Attributes:
        float32: The file that was quantised.
        int8: The quantised file.
        time_ratio: Time of the INT8 file over that of the float32 file, turn by turn: median, 10th
            and 90th percentile.
        turns: Number of turns.
        calibration_images: Number of training images that set the ranges of the activations.
        test_images: Number of test images.
    """

    float32: FileMeasures
    int8: FileMeasures
    time_ratio: Spread
    turns: int
    calibration_images: int
    test_images: int

    @property
    def size_ratio(self) -> float:
        """Size of the INT8 file over that of the float32 file."""
        return self.int8.size / self.float32.size

    @property
    def loss(self) -> float:
        """Points of accuracy, in %, that the INT8 file loses; negative if it gains."""
        return self.float32.accuracy - self.int8.accuracy

    @property
    def verdict(self) -> str:
        """Loss of accuracy in one line, which says so if it is more than one point."""
        verb, points = ("gains" if self.loss < 0 else "loses"), f"{abs(self.loss):.2f} points"
        of = f"INT8 {verb} {points} of accuracy on {self.test_images:,} test images"
        return f"{of}, which is more than one point" if self.loss > HARMFUL else of

    def as_dict(self) -> dict[str, Any]:
        """Return the measurements as plain values, with what they depend on."""
        import onnxruntime

        return {
            "float32": self.float32.as_dict(),
            "int8": self.int8.as_dict(),
            "loss_points": self.loss,
            "size_ratio": self.size_ratio,
            "time_ratio": _plain(self.time_ratio),
            "turns": self.turns,
            "calibration_images": self.calibration_images,
            "test_images": self.test_images,
            **environment.hardware(),
            "threads": 1,
            "onnxruntime": onnxruntime.__version__,
        }


def compare_files(
    float32: Path,
    int8: Path,
    data: Dataset,
    calibration_images: int,
    on_tested: Callable[[int], None] = lambda done: None,
) -> Int8Comparison:
    """Measure two ONNX files of one network on the CPU, with one thread, turn by turn."""
    test = data.test
    assert test is not None
    paths = float32, int8
    networks = [onnx_function(path, ["logits"], threads=1) for path in paths]
    accuracies = _accuracies(networks, data, test, on_tested)
    image = data.normalise(test.read([0])).contiguous()
    # One thread: its processor time is the time of an idle machine.
    before, after = (partial(network, image) for network in networks)
    seconds = timed_in_turn(before, after, time.thread_time)
    first, second = (
        FileMeasures(path, path.stat().st_size, accuracy, spread(taken))
        for path, accuracy, taken in zip(paths, accuracies, seconds, strict=True)
    )
    ratios = [later / earlier for earlier, later in zip(*seconds, strict=True)]
    ratio, turns = spread(ratios), len(ratios)
    return Int8Comparison(first, second, ratio, turns, calibration_images, len(test))


def _accuracies(
    networks: Sequence[Predictor], data: Dataset, test: Split, on_tested: Callable[[int], None]
) -> list[float]:
    """Return the accuracy of each network in %, with each test image read once."""
    right = torch.zeros(len(networks))
    for part in torch.split(torch.arange(len(test)), _PART):
        images = data.normalise(test.read(part.tolist())).contiguous()
        for place, network in enumerate(networks):
            right[place] += (network(images)[0].argmax(1) == test.labels[part]).sum()
        on_tested(int(part[-1]) + 1)
    return [100 * float(count) / len(test) for count in right]


def _plain(interval: Spread) -> dict[str, float]:
    return dict(zip(("median", "low", "high"), interval, strict=True))
