"""Images held on the device, and read as they are needed."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from diswot.data import loader as streams
from diswot.data.dataset import Dataset, Split
from diswot.data.loader import InMemoryImages, StreamedImages, batch_source
from diswot.data.registry import create_dataset

CPU = torch.device("cpu")


@cache
def digits() -> Dataset:
    return create_dataset("digits", img_size=8)


def test_streamed_is_held() -> None:
    split = digits().train
    assert split is not None
    parts = [torch.tensor([5, 3, 3]), torch.tensor([0]), *torch.arange(300).split(7)]
    held = batch_source(split, digits(), CPU, lambda done: None, hold=True)
    streamed = batch_source(split, digits(), CPU, lambda done: None, hold=False)
    assert isinstance(held, InMemoryImages) and isinstance(streamed, StreamedImages)
    for one, other in zip(held.batches(parts), streamed.batches(parts), strict=True):
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


def test_what_does_not_fit_is_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    split = digits().train
    assert split is not None
    needed = len(split) * 3 * 8 * 8
    for free, kind in (
        (needed / streams.SHARE + 9, InMemoryImages),
        (needed / streams.SHARE - 9, StreamedImages),
    ):
        monkeypatch.setattr(streams, "free", lambda device, free=free: free)
        assert isinstance(batch_source(split, digits(), CPU, lambda done: None), kind)
    monkeypatch.undo()
    assert streams.free(CPU) > 1e6


def test_few_batches_are_read_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 192)
    split = digits().train
    assert split is not None
    parts = iter(torch.arange(300).split(5))
    stream = StreamedImages(split, CPU).batches(parts)
    next(stream)
    assert len(list(parts)) == 60 - streams.THREADS - streams.AHEAD
    stream.close()


def test_an_error_in_reading_is_raised_and_ends_all_threads() -> None:
    def read(indices: Sequence[int]) -> Tensor:
        if 20 in indices:
            raise OSError("gone")
        return torch.zeros(len(indices), 3, 8, 8, dtype=torch.uint8)

    before = threading.active_count()
    made = StreamedImages(Split(torch.zeros(100, dtype=torch.int64), read), CPU)
    with pytest.raises(OSError, match="gone"):
        list(made.batches(torch.arange(100).split(5)))
    broken = replace(made, split=Split(made.split.labels, lambda i: torch.zeros(len(i))))
    stream = broken.batches(torch.arange(100).split(5))
    next(stream)
    stream.close()
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and "ThreadPool" in thread.name:
            thread.join(5)
    assert threading.active_count() <= before
