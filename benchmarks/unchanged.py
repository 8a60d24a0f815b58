"""Scores and searches that a rebuild of the package must not change.

`python benchmarks/unchanged.py record FILE` writes two things as JSON: the scores of six students
of each built-in space by every proxy, and the trials of short searches of four spaces by three
samplers. `python benchmarks/unchanged.py compare FILE` computes all of it again, prints one line
for each difference and exits with 1 if there is one. `--only WORD` restricts either command to the
sections whose name contains the word; `record` then keeps the other sections of FILE.
`--students 1` compares one student of each space alone, in a sixth of the time.

Everything goes through the command line, and trials are read by Optuna's own journal storage, so
that modules can move. Floats are stored by `float.hex`: one thread, one seed, equal to the last
bit. Bits belong to one processor and one version of torch, so FILE is no part of the repository:
record it with the old code and compare it with the new code on the same machine.

Searches have no budget here, since what is proposed outside a budget may change. In this process
and with one worker a search is the same from the first trial to the last. With two workers a
proposal depends on which candidates have ended, but the first ones of a sampler do not (`ORDERED`);
of the others each architecture must have the score that any recorded search of the space gave it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, and for workers

import optuna
import torch

from diswot.cli import main as diswot  # the only name of the package that is used here

STUDENTS = 6
SEED = 5
ZOO = "timm_zoo:lcnet_0[35]*,mobilenetv3_small_050,mnasnet_small,tinynet_e,resnet10t"


@dataclass(frozen=True)
class Setting:
    """How the students of a space are drawn and scored.

    Attributes:
        teacher: Name of the teacher; as wide as some students, for scores that need equal widths.
        size: Height and width of the images in pixels.
        limits: Options that keep the students small.
        batch: Images.
    """

    teacher: str
    size: int = 32
    limits: str = ""
    batch: int = 4

    @property
    def inputs(self) -> str:
        """The options that searches and scores share."""
        images = f"--data noise --classes 3 --image-size {self.size} --batch-size {self.batch}"
        return f"--teacher {self.teacher} {images} --seed {SEED} --quiet"


# No teacher is a vision transformer: in 0.1.0 a teacher's class token and positional embedding come
# from torch's global random state, and scores that compare with it differ from run to run.
SETTINGS = {
    "s0": Setting("resnet20", 16, "--max-params 0.4M", 8),
    "cifar_resnet": Setting("resnet20", 16, "--max-macs 10M", 8),
    "imagenet_resnet": Setting("timm:resnet18", 32, "--max-params 4M"),
    "mobilenet": Setting("timm:mobilenetv2_100", 32, "--max-params 1M"),
    "nasbench201": Setting("resnet20", 16, batch=8),
    "nasbench101": Setting("timm:resnet18", 8, "--max-params 4M"),
    "autoformer": Setting("timm:edgenext_x_small", 32, "--max-params 6M"),
    "vit": Setting("timm:edgenext_x_small", 32, "--max-params 2M"),
    "pit": Setting("timm:edgenext_x_small", 32, "--max-params 1M"),
    ZOO: Setting("timm:resnet18"),
}
DRAWN = {"nasbench101": 40}  # candidates, where many fail


@dataclass(frozen=True)
class Search:
    """A search of one space.

    Attributes:
        proxy: Name of the score.
        trials: Number of trials.
        setting: Teacher and images.
    """

    proxy: str
    trials: int
    setting: Setting


SEARCHES = {
    "s0": Search("diswot", 40, Setting("resnet20", 16, batch=8)),
    "nasbench201": Search("naswot", 40, Setting("resnet20", 8, batch=8)),
    "mobilenet": Search("relation", 30, Setting("resnet20", 32)),
    "autoformer": Search("semantic_class", 30, Setting("resnet20", 16)),
}
SAMPLERS = {"evolution": "score", "tpe": "score", "nsga2": "score,params"}
PLACES = {"alone": "", "one worker": "--workers 1", "two workers": "--workers 2"}
ORDERED = {"evolution": 20, "tpe": 10, "nsga2": 20}  # first trials that are equal with two workers

Trial = dict[str, Any]


def call(line: str, *more: str) -> str:
    """Run a command in this process.

    Returns:
        Its standard output.

    Raises:
        SystemExit: The command failed; its message stands on standard error.
    """
    with contextlib.redirect_stdout(io.StringIO()) as out:
        diswot([*line.split(), *more])
    return out.getvalue()


def searched(line: str) -> list[Trial]:
    """The trials that a search leaves in its run folder."""
    with tempfile.TemporaryDirectory() as folder:
        call(f"search {line} --threads 1 --json --out {folder}")
        backend = optuna.storages.journal.JournalFileBackend(f"{folder}/study.journal")
        storage = optuna.storages.JournalStorage(backend)
        study = optuna.load_study(study_name="diswot", storage=storage)
        return [
            {
                "params": [list(choice) for choice in trial.params.items()],
                "state": trial.state.name,
                "values": None if trial.values is None else [v.hex() for v in trial.values],
            }
            for trial in study.trials
        ]


def students(space: str) -> list[dict[str, Any]]:
    """The first random architectures of a space that fit its limits."""
    setting = SETTINGS[space]
    count = DRAWN.get(space, STUDENTS)
    how = f"--space {space} --trials {count} --sampler random --proxy params {setting.limits}"
    drawn = (t["params"] for t in searched(f"{how} {setting.inputs}") if t["state"] == "COMPLETE")
    different = {json.dumps(params): dict(params) for params in drawn}
    return list(different.values())[:STUDENTS]


def scored(space: str, student: dict[str, Any]) -> dict[str, Any]:
    """The scores of a student by every proxy that fits it, and its sizes."""
    line = f"score --space {space} --json {SETTINGS[space].inputs}"
    found = json.loads(call(line, "--student", json.dumps(student)))
    costs = {name: found["costs"][name] for name in ("model_params", "macs", "memory")}
    return {
        "student": student,
        "scores": {name: [v.hex() for v in values] for name, values in found["repeats"].items()},
        "not scored": found["unscored"],
        "costs": costs,
    }


def trials_of(space: str, sampler: str, place: str) -> list[Trial]:
    """The trials of one of the searches."""
    search = SEARCHES[space]
    how = f"--space {space} --proxy {search.proxy} --trials {search.trials}"
    goal = f"--sampler {sampler} --objectives {SAMPLERS[sampler]} {PLACES[place]}"
    return searched(f"{how} {goal} {search.setting.inputs}")


def sections(only: str) -> Iterator[tuple[str, ...]]:
    """The names of all parts of a recording: `scores` of a space, or a search."""
    names = [("scores", space) for space in SETTINGS]
    names += [
        ("search", *rest)
        for rest in ((s, how, place) for s in SEARCHES for how in SAMPLERS for place in PLACES)
    ]
    return (name for name in names if only in " ".join(name))


def record(only: str) -> dict[str, Any]:
    """All that is to stay the same."""
    found: dict[str, Any] = {"machine": machine()}
    for kind, *rest in sections(only):
        start, name = time.perf_counter(), " ".join((kind, *rest))
        if kind == "scores":
            found[name] = [scored(rest[0], student) for student in students(rest[0])]
        else:
            found[name] = trials_of(*rest)
        print(f"{name}: {time.perf_counter() - start:.1f} s", file=sys.stderr)
    return found


def machine() -> dict[str, str]:
    """What the last bits depend on besides the code."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    model = next((line.partition(": ")[2] for line in lines if "model name" in line), "")
    return {
        "processor": model or platform.processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "optuna": optuna.__version__,
    }


def differences(before: dict[str, Any], only: str, count: int) -> Iterator[str]:
    """One line for each thing that is not as it was recorded."""
    if before["machine"] != (here := machine()):
        print(f"recorded on {before['machine']}, compared on {here}", file=sys.stderr)
    for kind, *rest in sections(only):
        name = " ".join((kind, *rest))
        if name not in before:
            yield f"{name}: not recorded"
        elif kind == "scores":
            for old in before[name][:count]:
                new = scored(rest[0], old["student"])
                yield from scores_differ(f"{name} {old['student']}", old, new)
        else:
            space, sampler, place = rest
            new = trials_of(space, sampler, place)
            first = ORDERED[sampler] if place == "two workers" else None
            yield from in_order(name, before[name], new, first)
            yield from scores_again(name, new[first:] if first else [], known(before, space))


def scores_differ(name: str, old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    """What differs in the scores and sizes of a student; reasons may be put in other words."""
    for part in ("scores", "costs"):
        for key in old[part] | new[part]:
            was, now = old[part].get(key), new[part].get(key)
            if was != now:
                yield f"{name} {key}: {shown(was)} before, {shown(now)} now"


def in_order(name: str, old: list[Trial], new: list[Trial], first: int | None) -> Iterator[str]:
    """What differs in two lists of trials, number by number: in the first ones, or in all."""
    if len(old) != len(new):
        yield f"{name}: {len(old)} trials before, {len(new)} now"
    for number, (was, now) in enumerate(zip(old[:first], new[:first], strict=False)):
        for part in ("params", "state", "values"):
            if was[part] != now[part]:
                yield f"{name} trial {number}: {part} {was[part]} before, {now[part]} now"


def known(before: dict[str, Any], space: str) -> dict[str, str]:
    """The score of each architecture in all recorded searches of a space."""
    lists = [trials for name, trials in before.items() if name.startswith(f"search {space} ")]
    return {_key(t): t["values"][0] for trials in lists for t in trials if t["values"]}


def scores_again(name: str, trials: list[Trial], scores: dict[str, str]) -> Iterator[str]:
    """The architectures that have another score than before."""
    for trial in trials:
        was, now = scores.get(_key(trial)), (trial["values"] or [None])[0]
        if was is not None and was != now:
            yield f"{name} {trial['params']}: {was} before, {now} now"


def _key(trial: Trial) -> str:
    return json.dumps(sorted(trial["params"]))


def shown(values: Any) -> Any:
    """Scores as numbers and with their bits; other things as they are."""
    if not isinstance(values, list):
        return values
    return ", ".join(f"{float.fromhex(value)!r} ({value})" for value in values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["record", "compare"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--only", default="", help="part of the names of sections; all if empty")
    parser.add_argument("--students", type=int, default=STUDENTS, help="to compare of a space")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.command == "record":
        kept = options.only and options.file.is_file()
        before = json.loads(options.file.read_text()) if kept else {}
        options.file.write_text(json.dumps(before | record(options.only), indent=1) + "\n")
        return
    count = 0
    before = json.loads(options.file.read_text())
    for line in differences(before, options.only, options.students):
        count += 1
        print(line, flush=True)
    print(f"{count} differences", file=sys.stderr)
    sys.exit(bool(count))


if __name__ == "__main__":
    main()
