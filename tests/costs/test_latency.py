"""The measuring process: one at a time, kept, told in one line, gone when it should be."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from diswot.costs import latency
from diswot.costs.latency import Meter, Setting, metering
from diswot.errors import SearchFailed, UserError

SHAPE = (3, 8, 8)

# What the process imports is a file of its own, as of a user.
NETS = '''
import os, time
from pathlib import Path
import torch
from torch import nn
from diswot.errors import UserError

class Slow(nn.Module):
    """Works for so many milliseconds; writes down when, and where."""

    def __init__(self, milliseconds, log):
        super().__init__()
        self.seconds, self.log = milliseconds / 1e3, log
        self.head = nn.Linear(1, 2)

    def forward(self, images):
        start = time.perf_counter()
        while time.perf_counter() - start < self.seconds:
            pass
        line = f"{os.getpid()} {start} {time.perf_counter()} {torch.get_num_threads()}\\n"
        with Path(self.log).open("a") as file:
            file.write(line)
        return self.head(images.mean((1, 2, 3))[:, None])

def make(log):
    print("a user's own words")
    def build(params):
        print("a user's own words")
        if params["ms"] < 0:
            raise ValueError("no time\\nfor this")
        if params["ms"] > 1000:
            os._exit(3)
        return Slow(params["ms"], log)
    return build

def mistaken(log):
    raise UserError("no such space")

def wrong(log):
    raise RuntimeError("made badly")
'''


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Puts `latency_nets` on the path of this process and of those that it starts."""
    place = tmp_path_factory.mktemp("nets")
    (place / "latency_nets.py").write_text(NETS)
    sys.path.insert(0, str(place))
    yield place
    sys.path.remove(str(place))


def made(name: str, log: Path) -> Callable[[], Any]:
    import latency_nets

    return partial(getattr(latency_nets, name), log)


def lines(log: Path) -> list[list[float]]:
    return [[float(word) for word in line.split()] for line in log.read_text().splitlines()]


@pytest.fixture(scope="module")
def kept(nets: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Meter, Path]]:
    log = tmp_path_factory.mktemp("log") / "log"
    with metering(made("make", log), Setting(SHAPE, threads=1)) as meter:
        yield meter, log


def test_a_network_takes_as_long_as_it_does(kept: tuple[Meter, Path]) -> None:
    """By the processor's time, of which a busy machine may give less than the clock's."""
    meter, log = kept

    timing = meter.time({"ms": 4})

    assert 0 < timing.seconds < 0.008
    assert timing.low <= timing.seconds <= timing.high and timing.runs >= 9
    assert {int(row[0]) for row in lines(log)} != {os.getpid()}
    assert {row[3] for row in lines(log)} == {1}


def test_an_architecture_is_measured_once(kept: tuple[Meter, Path]) -> None:
    meter, log = kept
    first = meter.time({"ms": 1, "other": "a"})
    count = len(lines(log))

    assert meter.time({"other": "a", "ms": 1}) == first
    assert len(lines(log)) == count
    meter.time({"ms": 1, "other": "b"})
    assert len(lines(log)) > count


def test_one_at_a_time(kept: tuple[Meter, Path]) -> None:
    meter, log = kept
    asked = [threading.Thread(target=meter, args=({"ms": 2, "n": n},)) for n in range(5)]
    for thread in asked:
        thread.start()
    for thread in asked:
        thread.join()

    spans = sorted(row[1:3] for row in lines(log))
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(spans))
    assert len({row[0] for row in lines(log)}) == 1


def test_another_process_may_ask(kept: tuple[Meter, Path]) -> None:
    import pickle

    meter, _ = kept
    code = "import pickle, sys; print(pickle.loads(bytes.fromhex(sys.argv[1]))({'ms': 1}))"
    command = [sys.executable, "-c", code, pickle.dumps(meter).hex()]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)

    assert float(ran.stdout) == meter({"ms": 1})


def test_a_stranger_is_turned_away_and_does_no_harm(kept: tuple[Meter, Path]) -> None:
    import multiprocessing
    import socket

    meter, _ = kept
    with pytest.raises(multiprocessing.AuthenticationError):
        Meter(meter.address, b"another key")({"ms": 1})
    for words in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100):
        with socket.socket(socket.AF_UNIX) as stranger, suppress(OSError):
            stranger.connect(meter.address)
            stranger.send(words)

    assert meter({"ms": 1}) > 0


def test_a_network_that_fails_is_told_in_one_line_and_the_next_is_measured(
    kept: tuple[Meter, Path],
) -> None:
    meter, _ = kept
    with pytest.raises(RuntimeError, match=r"^latency: ValueError: no time for this$"):
        meter({"ms": -1})
    with pytest.raises(RuntimeError, match=r"^latency: KeyError: 'ms'$"):
        meter({})

    assert meter({"ms": 1}) > 0


def test_what_a_user_prints_is_no_result(
    nets: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with metering(made("make", tmp_path / "log"), Setting(SHAPE)) as meter:
        meter({"ms": 0})

    out, err = capfd.readouterr()
    assert out == "" and err.count("a user's own words") == 2


def test_a_process_that_dies_is_told(nets: Path, tmp_path: Path) -> None:
    with metering(made("make", tmp_path / "log"), Setting(SHAPE)) as meter:
        with pytest.raises(SearchFailed, match="the process that measures latency has ended"):
            meter({"ms": 2000})
        with pytest.raises(SearchFailed, match="the process that measures latency has ended"):
            meter({"ms": 1})


def test_a_network_that_never_ends_is_given_up(
    nets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "TIMEOUT", 0.05)
    with (
        metering(made("make", tmp_path / "log"), Setting(SHAPE)) as meter,
        pytest.raises(SearchFailed, match=r"no latency was measured within 0\.05 s"),
    ):
        meter({"ms": 900})


def test_mistakes_of_the_maker(nets: Path, tmp_path: Path) -> None:
    for name, message in (("mistaken", "^no such space$"), ("wrong", "could not be started")):
        with (
            pytest.raises(UserError, match=message),
            metering(made(name, tmp_path / "log"), Setting(SHAPE)),
        ):
            pass


def test_cache_is_kept_and_taken_up_by_the_same_setting(nets: Path, tmp_path: Path) -> None:
    cache, log = tmp_path / "latency.jsonl", tmp_path / "log"
    with metering(made("make", log), Setting(SHAPE), cache) as meter:
        first = meter.time({"ms": 1})
    rows = [json.loads(line) for line in cache.read_text().splitlines()]
    assert [row["params"] for row in rows] == [{"ms": 1}]
    assert rows[0]["setting"]["threads"] == 1 and rows[0]["setting"]["dtype"] == "float32"
    junk = '{"params": 3}\n[1]\nnonsense\n{"setting": {}}\n' + json.dumps(rows[0])[:-9]
    cache.write_text(cache.read_text() + junk)

    count = len(lines(log))
    with metering(made("make", log), Setting(SHAPE), cache) as meter:
        assert meter.time({"ms": 1}) == first
    assert len(lines(log)) == count
    with metering(made("make", log), Setting(SHAPE, threads=2), cache) as meter:
        meter.time({"ms": 1})
    assert len(lines(log)) > count


def test_the_process_ends_with_the_block_and_with_its_parent(nets: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with metering(made("make", log), Setting(SHAPE)) as meter:
        meter({"ms": 0})
    pid = int(lines(log)[0][0])
    assert not alive(pid)

    log = tmp_path / "other"
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); from functools import partial;"
        "import latency_nets; from diswot.costs.latency import *\n"
        "if __name__ == '__main__':\n"
        "    with metering(partial(latency_nets.make, sys.argv[2]), Setting((3, 8, 8))) as meter:\n"
        "        meter({'ms': 0}); print('ready', flush=True); time.sleep(60)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    paths = os.pathsep.join([str(nets), *sys.path])
    running = subprocess.Popen(
        [sys.executable, script, nets, log],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert running.stdout is not None
    assert running.stdout.readline() == b"ready\n"
    running.send_signal(signal.SIGKILL)
    running.wait()
    running.stdout.close()
    pid = int(lines(log)[0][0])
    for _ in range(200):
        if not alive(pid):
            break
        time.sleep(0.05)
    assert not alive(pid)


def alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat")
        return not state.exists() or state.read_text().split()[2] != "Z"
    return False


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "onx"}, "unknown latency engine 'onx'; did you mean onnx"),
        ({"threads": 0}, "at least one thread, not 0"),
        ({"engine": "onnx", "device": "cuda"}, "ONNX Runtime measures on the processor only"),
    ],
)
def test_wrong_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Setting(SHAPE, **options)


def test_facts_tell_all_that_a_number_depends_on() -> None:
    facts = Setting(SHAPE, engine="onnx", threads=2).facts

    assert facts["engine"] == "onnx" and facts["threads"] == 2 and facts["batch"] == 1
    assert facts["image_shape"] == [3, 8, 8] and facts["torch"] == torch.__version__
    assert {"device", "dtype", "memory_format", "clock", "processor"} <= facts.keys()
    assert json.loads(json.dumps(facts)) == facts


def test_a_missing_onnx_runtime_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from diswot.costs import timing

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"pip install 'diswot\[onnx\]'"):
        timing.with_onnx(nn.Linear(1, 1), SHAPE, Setting(SHAPE, engine="onnx"))
