"""`diswot export`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from diswot.cli import console, inputs, options
from diswot.errors import UserError
from diswot.runs import folder as runs
from diswot.storage.run_files import RUN, TRAINED

if TYPE_CHECKING:
    from torch import nn

    from diswot.exporters.model_card import StudentDescription

_Run = Annotated[Path, Argument(help="Folder of a search, or of a training.")]
_Format = Annotated[str, Option("--format", help="onnx, torch or safetensors.")]
_Out = Annotated[Path | None, Option("--out", help="Folder; else RUN/export.")]
_Trained = Annotated[
    Path | None, Option(help="Folder of the training that has the weights; else RUN/distilled.")
]


@dataclass(frozen=True)
class _Job:
    """A student to export.

    Attributes:
        config: What builds it and its images: `student`, `space`, `classes`, `image_size` ...
        facts: Rows of the model card.
        training: The result of its training; None if untrained.
        folder: Of that training.
        found: Whether a search found it.
    """

    config: Mapping[str, Any]
    facts: Mapping[str, Any]
    training: Mapping[str, Any] | None
    folder: Path
    found: bool


def export(
    run: _Run,
    *,
    kind: _Format = "onnx",
    trained: _Trained = None,
    out: _Out = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a found or trained student, for use without diswot."""
    from diswot.exporters.export import export as write

    with console.progress(quiet=quiet):
        job = _of_training(run, trained) if runs.is_training(run) else _of_search(run, trained)
        model, about = _student(run, job)
        written = write(model, out or run / "export", kind, about)
    if about.training is None:
        said = "the student is not trained, so its weights are random; --trained names a training"
        console.note(said, quiet=quiet)
    if as_json:
        files = [str(path) for path in written]
        console.show_json({"format": kind, "trained": about.training is not None, "files": files})
    else:
        console.note(f"written: {', '.join(map(str, written))}", quiet=quiet)


def _of_search(run: Path, trained: Path | None) -> _Job:
    """The student that a search found, with the weights of a training, if there is one."""
    from diswot.training.checkpoint import WEIGHTS

    config, folder = runs.searched(run), trained or run / "distilled"
    there = trained is not None or (folder / WEIGHTS).is_file()
    facts = {name: config.get(name) for name in ("data", "teacher", "space")}
    facts["search"] = runs.command(run / RUN)
    result = _result(folder) if there else None
    if result is not None and result.get("student") != json.loads(config["student"]):
        raise UserError(
            f"{folder} holds the training of another student than the one found in {run}; "
            f"diswot export {folder} takes that one"
        )
    return _Job(config, facts, result, folder, True)


def _of_training(run: Path, trained: Path | None) -> _Job:
    """The network that was trained in a folder, whoever named it."""
    if trained is not None:
        raise UserError(f"{run} is a training itself; leave --trained out")
    result = _result(run)
    if not {"student", "classes", "image_size", "data"} <= result.keys():
        raise UserError(f"{run}/{TRAINED} does not tell enough to build the network again")
    student, search = result["student"], result.get("search")
    config = {**result, "student": student if isinstance(student, str) else json.dumps(student)}
    facts = {name: result.get(name) for name in ("data", "space")}
    facts["search"] = search or "none recorded: the network was named"
    facts["training"] = runs.command(run / TRAINED)
    return _Job(config, facts, result, run, bool(search))


def _result(folder: Path) -> dict[str, Any]:
    """What a training wrote of itself."""
    from diswot.utils import files

    result = files.read_json(folder / TRAINED).get("result")
    if not isinstance(result, dict) or not {"test_accuracy", "train_accuracy"} <= result.keys():
        raise UserError(f"{folder}/{TRAINED} is not what diswot writes")
    return result


def _student(run: Path, job: _Job) -> tuple[nn.Module, StudentDescription]:
    """The network, with its weights where there are any, and what is known of it."""
    from diswot.costs.counts import count_depth, count_macs, count_params
    from diswot.exporters.model_card import StudentDescription, sizes
    from diswot.models.initialization import fresh
    from diswot.models.weights import load_weights
    from diswot.training.checkpoint import WEIGHTS

    config, classes, size = job.config, int(job.config["classes"]), int(job.config["image_size"])
    space = str(config.get("space"))
    build, named = inputs.student_builder(config["student"], space, classes, size)
    model = fresh(build, "default", int(config.get("seed", 0)))
    if job.training is not None:
        load_weights(model, job.folder / WEIGHTS)
    shape = (3, size, size)
    counts = sizes(count_params(model), count_macs(model, shape), count_depth(model))
    labels, mean, std = _images(config)
    return model, StudentDescription(
        name=run.resolve().name,
        image_shape=shape,
        classes=labels,
        mean=mean,
        std=std,
        params={"network": named} if isinstance(named, str) else named,
        facts={**job.facts, **counts},
        training=job.training,
        timm_model=_timm(config, named),
        found=job.found,
    )


def _images(
    config: Mapping[str, Any],
) -> tuple[tuple[str, ...], tuple[float, ...], tuple[float, ...]]:
    """Names of the classes, mean and deviation, as far as they are recorded or in reach."""
    from diswot.data.registry import create_dataset

    mean, std = tuple(config.get("mean") or ()), tuple(config.get("std") or ())
    size, root, classes = config["image_size"], config.get("data_root"), config["classes"]
    name = str(config["data"])
    try:
        images = create_dataset(name, num_classes=classes, img_size=size, root=root, download=False)
    except UserError:
        return (), mean, std
    return images.classes, mean or images.mean, std or images.std


def _timm(config: Mapping[str, Any], named: Any) -> tuple[str, dict[str, Any]] | None:
    """What timm is asked for, if it makes the network."""
    prefix, _, name = (named if isinstance(named, str) else str(config["space"])).partition(":")
    if prefix != ("timm" if isinstance(named, str) else "timm_zoo"):
        return None
    import timm

    name = name if isinstance(named, str) else str(named["model"])
    given: dict[str, Any] = {"num_classes": int(config["classes"])}
    known = timm.get_pretrained_cfg(name)
    if known is not None and known.fixed_input_size:
        given["img_size"] = int(config["image_size"])
    return name, given
