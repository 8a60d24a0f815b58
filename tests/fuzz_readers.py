"""Fuzzes what reads files and texts that others made: `python tests/fuzz_readers.py --seconds 60`.

Each reader is given inputs that atheris (libFuzzer) changes so as to reach new lines of it, in a
process of its own. It may refuse them by a `UserError`; anything else that it raises is a finding,
as is a file written outside the fuzzer's folder, a process, a connection, or a pickle that names
what is not plain. Inputs that found something are kept, and named at the end.

Needs the extra `fuzz`; without atheris it says so and ends with status 0.
"""

from __future__ import annotations

import argparse
import bz2
import collections
import io
import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

Reader = Callable[[bytes, Path], object]

PLAIN = {"collections", "numpy", "numpy.core.multiarray", "numpy._core.multiarray"}
STARTS = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "pty.spawn")
MOVES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass(frozen=True)
class Target:
    """A reader, and inputs to begin with."""

    read: Reader
    seeds: tuple[bytes, ...]


class Guard:
    """Notes what no reader may do; Python tells it of everything, whoever does it."""

    def __init__(self, folder: Path) -> None:
        self.folder = os.path.realpath(folder)
        self.seen: list[str] = []
        self.on = False
        sys.addaudithook(self.hear)

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        """See what is about to happen."""
        if not self.on:
            return
        if event.startswith(STARTS) or event == "socket.connect":
            self.seen.append(f"{event} {arguments}")
        elif event == "pickle.find_class" and arguments[0] not in PLAIN:
            self.seen.append(f"a pickle that names {arguments}")
        elif (event == "open" and _writes(*arguments)) or event in MOVES:
            self._touched(event, arguments[0])

    def _touched(self, event: str, path: Any) -> None:
        if isinstance(path, int) or path == os.devnull:
            return
        place = os.path.realpath(os.fsdecode(path))
        if not (place + os.sep).startswith(self.folder + os.sep):
            self.seen.append(f"{event} {place}")


def _writes(path: object, mode: str | None, flags: int) -> bool:
    return any(each in (mode or "") for each in "wax+") or bool((flags or 0) & WRITING)


# Readers


def texts(data: bytes, room: Path) -> None:
    from diswot.cli import budgets
    from diswot.cli.inputs import normalisation
    from diswot.spaces import nasbench201
    from diswot.spaces.registry import create_space
    from diswot.training.recipe import parse_losses
    from diswot.training.recipe_files import load_recipe
    from diswot.utils.units import parse_bytes, parse_count, parse_seconds

    text = data.decode(errors="replace")
    for parse in (
        *(parse_count, parse_bytes, parse_seconds, parse_losses, budgets.objectives),
        *(nasbench201.from_string, load_recipe),
        lambda text: normalisation("0.5", text),
        lambda text: create_space(text, 10, 8),
    ):
        with refused():
            parse(text)


def students(data: bytes, room: Path) -> None:
    from diswot.cli import inputs
    from diswot.data.registry import create_dataset

    images = create_dataset("noise", num_classes=10, img_size=8)
    with refused():
        inputs.named_student(data.decode(errors="replace"), "s0", images)


def table(name: str, space: str) -> Reader:
    def read(data: bytes, room: Path) -> None:
        from diswot.ranking.tables.read import read_table

        (room / name).write_bytes(data)
        with refused():
            read_table(room / name, space)

    return read


def nats(data: bytes, room: Path) -> None:
    from diswot.ranking.tables.read import read_table

    (room / "000000.pickle.pbz2").write_bytes(bz2.compress(data, 1))
    with refused():
        read_table(room, "nasbench201")


def toml(data: bytes, room: Path) -> None:
    from diswot.training.recipe_files import load_recipe

    (room / "mine.toml").write_bytes(data)
    with refused():
        load_recipe(str(room / "mine.toml"), epochs=7)


def weights(name: str) -> Reader:
    def read(data: bytes, room: Path) -> None:
        from diswot.utils import state_dicts

        (room / name).write_bytes(data)
        with refused():
            state_dicts.read_weights(room / name)

    return read


def journal(data: bytes, room: Path) -> None:
    """What a resumed search and a report do with the trials that they find."""
    from diswot.storage.run_files import JOURNAL

    (room / JOURNAL).write_bytes(data)
    with refused():
        taken_up(room)
    read_run(room)


def taken_up(room: Path) -> None:
    from optuna.samplers import RandomSampler

    from diswot.nas.api import _agree
    from diswot.nas.driver import Driver
    from diswot.storage.study import open_study, opened

    with opened(room) as storage:
        study = open_study(storage, "diswot", RandomSampler(), resume=True)
        _agree(study, {"seed": 0, "objectives": ["score"]})
        Driver(study, None, None).resume()  # type: ignore[arg-type]


def folder(name: str) -> Reader:
    def read(data: bytes, room: Path) -> None:
        (room / "run.json").write_bytes(seeds("run.json")[0])
        (room / "found.json").write_bytes(seeds("found.json")[0])
        (room / name).write_bytes(data)
        read_run(room)

    return read


def read_run(room: Path) -> None:
    """What a distillation and a report read of a run folder."""
    from diswot.runs import folder as runs
    from diswot.runs.read import load_run

    for act in (
        runs.search_config,
        lambda run: runs.numbered_student(run, "0"),
        runs.training_results,
        load_run,
    ):
        with refused():
            act(room)


def refused() -> Any:
    from diswot.errors import UserError

    return suppress(UserError)


# Inputs to begin with


def seeds(kind: str) -> tuple[bytes, ...]:
    student = {"params": {"blocks1": 1, "blocks2": 3, "blocks3": 5}, "score": 1.5, "macs": 9}
    config = {"teacher": "resnet20", "space": "s0", "data": "noise", "classes": 5}
    known: dict[str, tuple[Any, ...]] = {
        "run.json": ({"command": "x", "config": config, "study": {"storage": None}},),
        "found.json": ({"best": student, "top": [student], "front": [], "seconds": 1.0},),
        "rows.json": ([{"params": student["params"], "accuracy": 0.7}],),
    }
    return tuple(json.dumps(value).encode() for value in known[kind])


def journals() -> tuple[bytes, ...]:
    """Of a search with an end of each kind."""
    import optuna
    from optuna.samplers import RandomSampler

    from diswot.storage.run_files import JOURNAL
    from diswot.storage.study import open_study, opened

    ends = (
        {"score": 1.0, "scores": {"params": [1.0]}, "model_params": 4, "costs": {}, "margins": {}},
        {"reused": 0, "score": 1.0, "costs": {}},
        {"rejected": {"of": "params", "value": 5, "limit": 4}, "margins": {"params": 0.25}},
        {"failed": "ValueError: no", "kind": "error"},
    )
    with tempfile.TemporaryDirectory() as place, opened(place) as storage:
        study = open_study(storage, "diswot", RandomSampler(seed=0), resume=False)
        study.set_user_attr("config", {"seed": 0})
        for end in ends:
            trial = study.ask()
            trial.suggest_categorical("a", [1, "b"])
            trial.set_user_attr("end", end)
            failed = optuna.trial.TrialState.FAIL
            study.tell(trial, end.get("score"), None if "score" in end else failed)
        study.ask().suggest_int("c", 1, 4)
        text = (Path(place) / JOURNAL).read_bytes()
    return text, text[:900]


def saved(name: str) -> tuple[bytes, ...]:
    import torch

    from diswot.utils import state_dicts

    model = torch.nn.Linear(1, 1)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / name
        if name.endswith("safetensors"):
            state_dicts.save_weights(model, path)
        else:
            torch.save({"state_dict": model.state_dict(), "epoch": 3}, path)
        return (path.read_bytes(),)


def pickles() -> tuple[bytes, ...]:
    record = {
        "200": {
            "arch_str": "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|",
            "dataset_seed": {"cifar10": [777]},
            "all_results": collections.OrderedDict(
                {("cifar10", 777): {"epochs": 1, "eval_acc1es": {"ori-test@0": 90.5}}}
            ),
        }
    }
    return pickle.dumps(record), pickle.dumps(record, protocol=0)


CELL = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|avg_pool_3x3~2|"
CSV = b"blocks1,blocks2,blocks3,accuracy\n1,3,5,70.5\n3,3,3,71\n5,1,7,\n"
CELLS101 = b"adjacency,ops,acc\n0100001000,31,90.5\n"
RECIPE = b'epochs = 12\nlr = 0.1\nschedule = "step"\nmilestones = [3, 6.5]\nlosses = {kd = 1.0}\n'


def targets() -> dict[str, Callable[[], Target]]:
    """By name; made when needed, for their seeds take a while."""
    words = (b"1.5M", b"30KiB", b"8ms", b"kd:0.9,at:1", b"score,latency", CELL.encode(), b"s0")
    shown = json.dumps({"blocks1": 1, "blocks2": 3, "blocks3": 5}).encode()
    return {
        "texts": lambda: Target(texts, words),
        "students": lambda: Target(students, (shown, b"resnet20", b"timm:resnet18")),
        "csv": lambda: Target(table("a.csv", "s0"), (CSV,)),
        "cells": lambda: Target(table("b.csv", "nasbench201"), (b"arch,acc\n" + CELL.encode(),)),
        "graphs": lambda: Target(table("c.csv", "nasbench101"), (CELLS101,)),
        "json": lambda: Target(table("a.json", "s0"), seeds("rows.json")),
        "gzip": lambda: Target(table("a.csv.gz", "s0"), (gzipped(CSV),)),
        "nats": lambda: Target(nats, pickles()),
        "recipe": lambda: Target(toml, (RECIPE,)),
        "torch": lambda: Target(weights("a.pt"), saved("a.pt")),
        "safetensors": lambda: Target(weights("a.safetensors"), saved("a.safetensors")),
        "run": lambda: Target(folder("run.json"), seeds("run.json")),
        "found": lambda: Target(folder("found.json"), seeds("found.json")),
        "history": lambda: Target(folder("history.jsonl"), (b'{"epoch":1,"loss":2.5}\n' * 2,)),
        "journal": lambda: Target(journal, journals()),
    }


def gzipped(data: bytes) -> bytes:
    import gzip

    return gzip.compress(data, mtime=0)


# Fuzzing


def fuzz(name: str, seconds: int, place: Path) -> None:
    """Fuzz one reader; libFuzzer ends the process."""
    import atheris
    import optuna

    with atheris.instrument_imports(include=["diswot"]), redirect_stderr(io.StringIO()):
        import diswot.nas.api
        import diswot.nas.driver
        import diswot.ranking.tables.read
        import diswot.runs.folder
        import diswot.runs.read  # noqa: F401
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sys.dont_write_bytecode = True
    target = targets()[name]()
    corpus, room = place / "corpus", place / "room"
    for made in (corpus, room, place / "here"):
        made.mkdir()
    for number, seed in enumerate(target.seeds):
        (corpus / str(number)).write_bytes(seed)
        target.read(seed, room)  # what is imported late is imported now
    os.chdir(place / "here")
    guard = Guard(room)

    def one(data: bytes) -> None:
        guard.on = True
        try:
            target.read(data, room)
        finally:
            guard.on = False
        if guard.seen or os.listdir(place / "here"):
            raise AssertionError(f"not to be done: {guard.seen[:3]} {os.listdir('.')}")

    limits = [f"-max_total_time={seconds}", "-timeout=60", "-rss_limit_mb=4096", "-max_len=16384"]
    kept = f"-artifact_prefix={place.parent}/{name}-"
    atheris.Setup([sys.argv[0], *limits, kept, "-print_final_stats=1", str(corpus)], one)
    atheris.Fuzz()


def run(name: str, seconds: int, out: Path) -> bool:
    """Fuzz a reader in a process of its own; returns whether nothing was found."""
    with tempfile.TemporaryDirectory(dir=out) as place:
        command = [sys.executable, __file__, "--only", name, "--seconds", str(seconds)]
        ran = subprocess.run([*command, "--place", place], capture_output=True, text=True)
    lines = (ran.stderr + ran.stdout).splitlines()
    count = next((x.split()[-1] for x in lines if "number_of_executed_units" in x), "?")
    print(
        f"{name}: {count} inputs, {'nothing found' if not ran.returncode else 'FOUND'}", flush=True
    )
    if ran.returncode:
        (out / f"{name}.log").write_text("\n".join(lines))
        print("\n".join(lines[-25:]), flush=True)
    return ran.returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=30, help="for each reader")
    parser.add_argument("--target", choices=list(targets()), help="one reader; else all")
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "fuzz-readers")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if find_spec("atheris") is None:
        print("skipped: atheris is not installed; pip install -e '.[fuzz]', on Linux x86-64")
        return
    if options.only:
        fuzz(options.only, options.seconds, options.place)
    options.out.mkdir(parents=True, exist_ok=True)
    names = [options.target] if options.target else list(targets())
    fine = [run(name, options.seconds, options.out) for name in names]
    sys.exit(0 if all(fine) else f"inputs that found something are in {options.out}")


if __name__ == "__main__":
    main()
