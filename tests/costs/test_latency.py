"""A bench for latency: what it measures, what it keeps, and how it fails."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import detectors
import pytest
import torch
import toys
from torch import Tensor, nn

from diswot.costs.latency import LatencyBench, Setting, clock, with_onnx, with_torch
from diswot.costs.timing import Timing
from diswot.errors import UserError
from diswot.executors.processes import process_pool

SHAPE = (3, 8, 8)


class Slow(nn.Module):
    """Keeps the processor busy for some milliseconds of its time, and counts its passes."""

    def __init__(self, milliseconds: float, passes: list[int]) -> None:
        super().__init__()
        self.seconds, self.passes = milliseconds / 1e3, passes
        self.head = nn.Linear(1, 2)

    def forward(self, images: Tensor) -> Tensor:
        assert images.shape == (1, *SHAPE) and not self.training
        assert not torch.is_grad_enabled()
        start = time.thread_time()
        while time.thread_time() - start < self.seconds:
            pass
        self.passes.append(torch.get_num_threads())
        out: Tensor = self.head(images.mean((1, 2, 3))[:, None])
        return out


def building(passes: list[int]) -> Callable[[dict[str, Any]], nn.Module]:
    def build(params: dict[str, Any]) -> nn.Module:
        if params["ms"] < 0:
            raise ValueError("no time\nfor this")
        return Slow(params["ms"], passes)

    return build


def test_a_network_takes_as_long_as_it_does() -> None:
    """By the processor's time, of which a busy machine may give less than the clock's."""
    timing = LatencyBench(building([]), Setting(SHAPE))({"ms": 4})

    assert 0.004 <= timing.low <= timing.seconds <= timing.high and timing.seconds < 0.008
    assert timing.runs >= 9


def test_an_architecture_is_measured_once() -> None:
    passes: list[int] = []
    bench = LatencyBench(building(passes), Setting(SHAPE))
    first = bench({"ms": 1, "other": "a"})
    count = len(passes)

    assert bench({"other": "a", "ms": 1}) is first and len(passes) == count
    bench({"ms": 1, "other": "b"})
    assert len(passes) > count


def test_threads_are_those_of_the_setting_meanwhile() -> None:
    before, passes = torch.get_num_threads(), list[int]()
    LatencyBench(building(passes), Setting(SHAPE, threads=before + 1))({"ms": 0})

    assert set(passes) == {before + 1} and torch.get_num_threads() == before


def test_a_network_that_fails_is_reported_in_one_line_and_the_next_is_measured() -> None:
    bench = LatencyBench(building([]), Setting(SHAPE))
    with pytest.raises(RuntimeError, match=r"^latency: ValueError: no time for this$"):
        bench({"ms": -1})
    with pytest.raises(RuntimeError, match=r"^latency: KeyError: 'ms'$"):
        bench({})

    assert bench({"ms": 1}).seconds > 0


def test_cache_is_read_by_the_same_setting(tmp_path: Path) -> None:
    cache, passes = tmp_path / "latency.jsonl", list[int]()
    first = LatencyBench(building(passes), Setting(SHAPE), cache)({"ms": 1})
    rows = [json.loads(line) for line in cache.read_text().splitlines()]
    assert [row["params"] for row in rows] == [{"ms": 1}]
    assert Timing(**rows[0]["timing"]) == first
    assert rows[0]["setting"] == Setting(SHAPE).facts
    junk = '{"params": 3}\n[1]\nnonsense\n{"setting": {}}\n'
    torn = json.dumps(rows[0])[:-9]
    cache.write_text(junk + cache.read_text() + torn)

    count = len(passes)
    again = LatencyBench(building(passes), Setting(SHAPE), cache)
    assert again({"ms": 1}) == first and len(passes) == count
    again({"ms": 2})
    assert len(passes) > count
    assert cache.read_text().startswith(junk) and torn + "{" not in cache.read_text()

    count = len(passes)
    LatencyBench(building(passes), Setting(SHAPE, threads=2), cache)({"ms": 1})
    assert len(passes) > count
    assert len(cache.read_text().splitlines()) == 4 + 3


def test_a_cache_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    bench = LatencyBench(building([]), Setting(SHAPE), tmp_path / "no" / "such" / "folder")

    assert bench({"ms": 0}).seconds >= 0


def made() -> LatencyBench:
    return LatencyBench(lambda params: nn.Flatten(), Setting(SHAPE))


def test_a_bench_in_a_process_of_its_own() -> None:
    with process_pool([made], 1) as pool:
        pool.submit("empty", {})
        (result,) = pool.wait()

    assert isinstance(result.value, Timing) and 0 < result.value.seconds < 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "onx"}, "unknown latency engine 'onx'; did you mean onnx"),
        ({"threads": 0}, "at least one thread, not 0"),
        ({"engine": "onnx", "device": "cuda"}, "ONNX Runtime measures on the processor only"),
        ({"device": "cuda:99"}, "no device cuda:99 here; there is: cpu"),
    ],
)
def test_wrong_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Setting(SHAPE, **options)


def test_facts_are_all_that_a_number_depends_on() -> None:
    facts = Setting(SHAPE, threads=2).facts

    assert facts["engine"] == "torch" and facts["threads"] == 2 and facts["batch"] == 1
    assert facts["image_shape"] == [3, 8, 8] and facts["torch"] == torch.__version__
    assert {"device", "dtype", "memory_format", "clock", "processor"} <= facts.keys()
    assert json.loads(json.dumps(facts)) == facts


def test_a_missing_onnx_runtime_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"pip install 'diswot\[onnx\]'"):
        Setting(SHAPE, engine="onnx")


def test_one_thread_is_timed_by_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diswot.utils.devices.accelerators", lambda: ["cuda:0"])
    assert clock(Setting(SHAPE)) == ("processor time of the thread", time.thread_time)
    for other in (Setting(SHAPE, threads=2), Setting(SHAPE, device="cuda")):
        assert clock(other) == ("wall clock", time.perf_counter)


class Looks(nn.Module):
    """Notes how it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.seen: list[tuple[object, ...]] = []

    def forward(self, images: Tensor) -> Tensor:
        form = torch.channels_last
        kinds = [t.is_contiguous(memory_format=form) for t in (images, self.conv.weight)]
        self.seen.append((*kinds, images.dtype, self.training, torch.is_inference_mode_enabled()))
        return self.norm(self.conv(images)).mean((2, 3))


def test_torch_runs_one_image_channels_last_in_float32_and_evaluation_mode() -> None:
    model = Looks().half()

    call = with_torch(model, Setting(SHAPE))
    call()

    assert model.seen == [(True, True, torch.float32, False, True)]


def test_onnx_runs_the_same_network() -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = toys.seeded(toys.LinearHead)

    (logits,) = with_onnx(model, Setting(SHAPE, engine="onnx"))()

    assert logits.shape == (1, toys.CLASSES)


def test_onnx_runs_a_detector_with_what_selects_its_boxes() -> None:
    """The boxes themselves are held to those of torch in the tests of the export."""
    pytest.importorskip("onnxruntime")
    shape = (3, *detectors.SIZE)
    boxes, labels, scores = with_onnx(detectors.ssd(), Setting(shape, "onnx"))()
    assert boxes.shape == (len(scores), 4) and len(labels) == len(scores) > 0
