"""`diswot export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from diswot import console
from diswot.cli import inputs, options, runs
from diswot.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from diswot.export import About

_Run = Annotated[Path, Argument(help="Folder of a search.")]
_Format = Annotated[str, Option("--format", help="onnx, torch or safetensors.")]
_Out = Annotated[Path | None, Option("--out", help="Folder; else RUN/export.")]
_Trained = Annotated[
    Path | None, Option(help="Folder of the training that has the weights; else RUN/distilled.")
]


def export(
    run: _Run,
    *,
    kind: _Format = "onnx",
    trained: _Trained = None,
    out: _Out = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write the found student, to be used without diswot."""
    from diswot.export import export as write

    with console.progress(quiet=quiet):
        job = runs.searched(run)
        result = _result(run, trained)
        model, about = _student(run, job, result, trained or run / "distilled")
        written = write(model, out or run / "export", kind, about)
    if about.training is None:
        said = "the student is not trained, so its weights are random; --trained names a training"
        console.note(said, quiet=quiet)
    if as_json:
        files = [str(path) for path in written]
        console.show_json({"format": kind, "trained": about.training is not None, "files": files})
    else:
        console.note(f"written: {', '.join(map(str, written))}", quiet=quiet)


def _result(run: Path, trained: Path | None) -> dict[str, Any] | None:
    """What a training wrote of itself; none if none was asked for and there is none."""
    from diswot import files
    from diswot.checkpoint import WEIGHTS

    place = trained or run / "distilled"
    if trained is None and not (place / WEIGHTS).is_file():
        return None
    result = files.read_json(place / runs.TRAINED).get("result")
    if not isinstance(result, dict) or not {"test_accuracy", "train_accuracy"} <= result.keys():
        raise UserError(f"{place}/{runs.TRAINED} is not what diswot writes")
    return result


def _student(
    run: Path, job: dict[str, Any], result: dict[str, Any] | None, place: Path
) -> tuple[nn.Module, About]:
    """The network, with its weights where there are any, and what is known of it."""
    from diswot import teachers
    from diswot.budget import count_depth, count_macs, count_params
    from diswot.checkpoint import WEIGHTS
    from diswot.export.about import About, sizes
    from diswot.initialise import fresh

    classes, size = int(job["classes"]), int(job["image_size"])
    build, params = inputs.student_builder(job["student"], str(job["space"]), classes, size)
    model = fresh(build, "default", int(job.get("seed", 0)))
    if result is not None:
        teachers.load_weights(model, place / WEIGHTS)
    shape = (3, size, size)
    facts = {name: job.get(name) for name in ("data", "teacher", "space")}
    facts |= sizes(count_params(model), count_macs(model, shape), count_depth(model))
    facts["search"] = " ".join(_command(run))
    named, mean, std = _images(job)
    made = (
        run.resolve().name, shape, named, mean, std, params, facts, result, _timm(job, params)
    )  # fmt: skip
    return model, About(*made)


def _images(job: dict[str, Any]) -> tuple[tuple[str, ...], tuple[float, ...], tuple[float, ...]]:
    """Names of the classes, mean and deviation, as far as they are recorded or in reach."""
    from diswot import data

    mean, std = tuple(job.get("mean") or ()), tuple(job.get("std") or ())
    size, root, classes = job["image_size"], job.get("data_root"), job["classes"]
    try:
        images = data.get(str(job["data"]), classes=classes, size=size, root=root, download=False)
    except UserError:
        return (), mean, std
    return images.classes, mean or images.mean, std or images.std


def _command(run: Path) -> list[str]:
    from diswot import files

    words = files.read_json(run / runs.RUN).get("command")
    return [str(word) for word in words] if isinstance(words, list) else []


def _timm(job: dict[str, Any], params: Any) -> tuple[str, dict[str, Any]] | None:
    """What timm is asked for, if the space is its zoo."""
    if str(job["space"]).partition(":")[0] != "timm_zoo":
        return None
    import timm

    name = str(params["model"])
    given: dict[str, Any] = {"num_classes": int(job["classes"])}
    known = timm.get_pretrained_cfg(name)
    if known is not None and known.fixed_input_size:
        given["img_size"] = int(job["image_size"])
    return name, given
