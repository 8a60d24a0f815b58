"""What an earlier version left is read, and what it proposed is proposed again.

`recorded/search_0_1_0` is the folder of a search by version 0.1.0, with two students verified and
the best one distilled. The commands, with RUN in place of the folder and the file of the teacher's
weights, of a training of ten epochs, in it beforehand:

    diswot search --teacher RUN/networks.py:teacher --teacher-weights RUN/teacher.safetensors
        --space RUN/networks.py:space --data digits --image-size 8 --mean 0.3 --std 0.4
        --batch-size 16 --proxy relation --trials 6 --max-params 660
        --verify 2 --verify-epochs 1 --recipe fast --out RUN
    diswot distill RUN --epochs 1 --batch-size 32 --lr 0.2 --precision fp32

The absolute path of the folder was replaced by the word FOLDER in its files.

`recorded/evolution_0_1_0.json` has the names of the choices of a space, and below them the
architectures that evolution proposed, in their order.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import optuna
import pytest
from commands import Run
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from safetensors.torch import load_file

RECORDED = Path(__file__).parent / "recorded"
EVOLUTION = json.loads((RECORDED / "evolution_0_1_0.json").read_text())
IMAGES = "--data digits --image-size 8 --mean 0.3 --std 0.4 --batch-size 16"
LIMITS = "--proxy relation --max-params 660"
VERIFIED = "--verify 2 --verify-epochs 1 --recipe fast"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A copy of the folder, with its own path in its files."""
    folder = tmp_path / "old"
    shutil.copytree(RECORDED / "search_0_1_0", folder)
    for name in ("run.json", "study.journal", "distilled/trained.json"):
        path = folder / name
        text = path.read_text()
        assert "FOLDER" in text
        path.write_text(text.replace("FOLDER", str(folder)))
    return folder


def trials(folder: Path) -> list[FrozenTrial]:
    """The trials in the journal of a run folder."""
    storage = JournalStorage(JournalFileBackend(str(folder / "study.journal")))
    return optuna.load_study(study_name="diswot", storage=storage).trials


def outcome(trial: FrozenTrial) -> tuple[Any, ...]:
    """What a search says of a trial."""
    return trial.number, trial.params, trial.state, trial.values


def resumed(run: Run, folder: Path, more: str) -> dict[str, Any]:
    """What the command prints that resumes the old search."""
    networks, weights = folder / "networks.py", folder / "teacher.safetensors"
    names = f"--teacher {networks}:teacher --teacher-weights {weights} --space {networks}:space"
    line = f"search {names} {IMAGES} {LIMITS} {more} --out {folder} --resume --json --quiet"
    found: dict[str, Any] = run(line).json
    return found


def as_recorded(student: dict[str, Any]) -> dict[str, Any]:
    """A student without the fact that a version 0.1.0 did not record."""
    assert student["trainable_params"] is None
    return {name: value for name, value in student.items() if name != "trainable_params"}


def test_old_search_is_resumed(run: Run, old: Path) -> None:
    """Four trials more are scored, and none of the old ones changes."""
    before, kept = trials(old), json.loads((old / "found.json").read_text())
    states = [trial.state for trial in before]
    assert (states.count(TrialState.COMPLETE), states.count(TrialState.PRUNED)) == (6, 3)

    found = resumed(run, old, "--trials 10")

    after = trials(old)
    assert list(map(outcome, after[:9])) == list(map(outcome, before))
    within = [trial.params for trial in after if trial.state == TrialState.COMPLETE]
    assert (found["trials"], found["scored"]) == (10, 10)
    assert len(within) == 10 and all(within.count(params) == 1 for params in within)
    top = {each["trial"]: each for each in found["top"]}
    assert kept["top"] == [as_recorded(top[each["trial"]]) for each in kept["top"]]
    assert json.loads((old / "found.json").read_text())["trials"] == 10


def test_old_verification_is_resumed(run: Run, old: Path) -> None:
    """Nothing is left to score or to train: the result is the old one."""
    kept = json.loads((old / "found.json").read_text())
    journal = (old / "verify" / "study.journal").read_text().splitlines()

    found = resumed(run, old, f"--trials 6 {VERIFIED}")

    found["best"], found["top"] = as_recorded(found["best"]), [*map(as_recorded, found["top"])]
    for name in ("best", "top", "trials", "scored", "rejected", "objectives"):
        assert found[name] == kept[name], name
    old_rows, rows = (each["verified"].pop("trained") for each in (kept, found))
    old_best, best = (each["verified"].pop("best") for each in (kept, found))
    for before, now in zip([*old_rows, old_best], [*rows, best], strict=True):
        assert now.keys() - before.keys() == {"interval", "accuracies", "start"}
        assert now["start"] == {"from": "fresh"}
        now["student"] = as_recorded(now["student"])
        assert {name: now[name] for name in before} == before
    assert {name: found["verified"][name] for name in kept["verified"]} == kept["verified"]
    added = (old / "verify" / "study.journal").read_text().splitlines()[len(journal) :]
    assert not [line for line in added if json.loads(line)["op_code"] == 4], "a training was begun"


def test_old_search_with_other_options_is_refused(run: Run, old: Path) -> None:
    networks = old / "networks.py"
    line = f"search --teacher {networks}:teacher --space {networks}:space {IMAGES} {LIMITS}"
    said = run(f"{line} --trials 10 --out {old} --resume").mistake()
    assert "trained_teacher" in said or "teacher_weights" in said


def test_old_run_is_reported(run: Run, old: Path) -> None:
    """The page shows the search, its verification and its training."""
    page = Path(run(f"report {old} --json --quiet").json["report"]).read_text()
    result = json.loads((old / "distilled" / "trained.json").read_text())["result"]
    best = json.loads((old / "found.json").read_text())["best"]
    assert f"{result['test_accuracy']:.2f}" in page
    assert f"{best['accuracy']:.2f}" in page
    assert "--max-params 660" in page


def test_old_student_is_exported(run: Run, old: Path) -> None:
    """Its weights are those that the old version trained."""
    written = run(f"export {old} --format safetensors --json --quiet").json
    assert written["trained"]
    (path,) = [name for name in written["files"] if name.endswith(".safetensors")]
    exported = {name.removeprefix("layer_"): value for name, value in load_file(path).items()}
    trained = load_file(old / "distilled" / "student.safetensors")
    assert exported.keys() == trained.keys()
    assert all(exported[name].equal(trained[name]) for name in trained)


@pytest.mark.parametrize("space", sorted(EVOLUTION))
def test_evolution_proposes_the_same(run: Run, tmp_path: Path, space: str) -> None:
    names, *proposed = EVOLUTION[space]
    images = "--data noise --classes 10 --image-size 8 --batch-size 4"
    how = "--sampler evolution --proxy params --trials 40 --seed 0 --quiet --json"
    found = run(f"search --teacher resnet20 --space {space} {images} {how} --out {tmp_path}").json
    assert found["trials"] == 40
    after = trials(tmp_path)
    assert [list(trial.params) for trial in after] == [names] * 40
    assert [list(trial.params.values()) for trial in after] == proposed
