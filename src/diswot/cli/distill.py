"""`diswot distill`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diswot.cli import console, inputs, options, training
from diswot.errors import UserError, unknown
from diswot.runs import folder as runs
from diswot.storage.run_files import RUN, TRAINED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

    from diswot.data.dataset import Data
    from diswot.training.distill import Distilled
    from diswot.training.recipe import Recipe

_UNTRAINED = (
    "a teacher must be trained to teach; give --teacher-weights, or train it first: "
    "diswot distill --student {teacher} --teacher none --data {data} --out FOLDER, "
    "which leaves FOLDER/student.safetensors"
)
_BOUND = {
    "teacher": ["teacher_weights", "pretrained"],
    "pretrained": ["teacher_weights", "image_size", "mean", "std"],
    "data": ["data_root", "image_size", "mean", "std"],
}
_DEFAULTS: dict[str, Any] = {
    "student": None,
    "teacher": None,
    "teacher_weights": None,
    "space": "s0",
}
_DEFAULTS |= {"data": "digits", "data_root": None, "image_size": None}
_DEFAULTS |= {"pretrained": False, "mean": None, "std": None}


def distill(
    run: options.Run = None,
    *,
    student: options.OtherStudent = None,
    teacher: options.OtherTeacher = None,
    teacher_weights: options.Weights = None,
    pretrained: options.Pretrained = False,
    mean: options.Mean = None,
    std: options.Std = None,
    space: options.OtherSpace = None,
    data: options.OtherData = None,
    data_root: options.DataRoot = None,
    image_size: options.ImageSize = None,
    recipe: options.RecipeName = None,
    epochs: options.Epochs = None,
    batch_size: options.TrainingBatch = None,
    accumulate: options.Accumulate = None,
    optimizer: options.Optimizer = None,
    lr: options.Lr = None,
    weight_decay: options.WeightDecay = None,
    schedule: options.Schedule = None,
    warmup_epochs: options.WarmupEpochs = None,
    milestones: options.Milestones = None,
    losses: options.Losses = None,
    temperature: options.Temperature = None,
    cross_entropy: options.CrossEntropy = None,
    label_smoothing: options.LabelSmoothing = None,
    ema: options.Ema = None,
    crop: options.Crop = None,
    area: options.Area = None,
    flip: options.Flip = None,
    cutout: options.Cutout = None,
    cache: options.Cache = None,
    precision: options.Precision = None,
    compiled: options.Compile = None,
    seed: options.Seed = 0,
    hold: options.Hold = None,
    tensorboard: options.TensorBoard = False,
    out: options.TrainingFolder = None,
    resume: options.Resume = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train the found student, or another, from a teacher or alone."""
    settings = {
        "epochs": epochs,
        "batch_size": batch_size,
        "accumulate": accumulate,
        "optimizer": optimizer,
        "lr": lr,
        "weight_decay": weight_decay,
        "schedule": schedule,
        "warmup_epochs": warmup_epochs,
        "milestones": milestones,
        "losses": losses,
        "temperature": temperature,
        "cross_entropy": cross_entropy,
        "label_smoothing": label_smoothing,
        "ema": ema,
        "crop": crop,
        "area": area,
        "flip": flip,
        "cutout": cutout,
        "cache": cache,
        "precision": precision,
        "compile": compiled,
        "seed": seed,
    }
    listed = runs.listed(run, student)
    by_number = student if student != listed else None
    given: dict[str, Any] = {"student": listed, "space": space, "data": data}
    given |= {"data_root": data_root, "image_size": image_size}
    given |= {"teacher": teacher, "teacher_weights": teacher_weights}
    given |= {"pretrained": pretrained or None, **inputs.normalisation(mean, std)}
    job = _job(run, given)
    found = run is not None and (student is None or by_number is not None)
    job["search"] = runs.command(run / RUN) if run is not None and found else None
    alone = job["teacher"] == "none"
    if alone and teacher_weights is not None:
        raise UserError("--teacher none trains without a teacher; leave --teacher-weights out")
    if job["data"] == "digits" and flip is None:
        settings["flip"] = False
    choose = partial(training.recipe, recipe, settings, alone=alone)
    choose()  # refuse impossible settings before anything is read
    if out is None and run is not None and found:
        name = "alone" if alone else "distilled"
        out = run / (f"{name}-{by_number}" if by_number else name)
    if out is None:
        raise UserError("name a folder to keep the training in: --out")
    if (out / RUN).is_file():
        raise UserError(f"{out} is of a search or a ranking; name another folder")
    with runs.resumable(out), console.progress(quiet=quiet) as advance:
        result = _train(job, choose, out, resume, hold, tensorboard, advance)
    if not training.main_process():
        return
    if as_json:
        console.show_json(result)
    else:
        _show(runs.trainings(out.parent) if run and out.parent == run else {str(out): result})
        console.note(f"kept in {out}, the weights in student.safetensors", quiet=quiet)


def _job(run: Path | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """What to train on what: the options, else those of the search, else the defaults.

    An option for the teacher or the data discards what the search was told of its own.
    """
    before = runs.searched(run) if run else {}
    given = {name: value for name, value in given.items() if value is not None}
    for name in _BOUND.keys() & given.keys():
        before = {key: value for key, value in before.items() if key not in _BOUND[name]}
    job = {**_DEFAULTS, **before, **given}
    if job["student"] is None:
        raise UserError("name a student: the folder of a search, or --student")
    if job["teacher"] is None:
        raise UserError("name a teacher, or none to train alone: --teacher")
    return job


def _train(
    job: Mapping[str, Any],
    choose: Callable[..., Recipe],
    out: Path,
    resume: bool,
    hold: bool | None,
    tensorboard: bool,
    advance: console.Advance,
) -> dict[str, Any]:
    """Train, and write the result into the folder."""
    from diswot.models.initialization import fresh
    from diswot.training.distill import distill as train
    from diswot.utils import files

    alone = job["teacher"] == "none"
    images = _images(job, alone)
    build, named = inputs.student_builder(
        *(job["student"], job["space"], len(images.classes), images.size),
        pretrained=alone and job["pretrained"],
    )
    taught = _teacher(job, images)
    model = fresh(build, "default", choose().seed)
    recipe = choose(student=model)

    trained = train(
        model,
        taught,
        images,
        recipe,
        out=out,
        resume=resume,
        hold=hold,
        tensorboard=tensorboard,
        on_step=training.shown(advance, recipe),
        on_read=lambda done, total: advance("reading images", done, total),
    )
    about: dict[str, Any] = {"student": named, "teacher": None, "teacher_weights": None}
    about |= {"space": None if isinstance(named, str) else inputs.from_root(job["space"])}
    root = job["data_root"]
    about |= {"search": job["search"], "data_root": root and str(Path(root).resolve())}
    if taught is not None:
        weights = job["teacher_weights"]
        about |= {"teacher": job["teacher"]}
        about |= {"teacher_weights": weights and str(Path(weights).resolve())}
    result = {**about, **_result(trained, recipe, images, out)}
    if training.main_process():
        files.write_json(out / TRAINED, {**runs.facts(), "result": result})
    return result


def _images(job: Mapping[str, Any], alone: bool) -> Data:
    """What to train on, as the teacher sees it, or the student alone."""
    images = inputs.data_set(
        *(job["data"], None, job["image_size"], job["data_root"]),
        network=job["student" if alone else "teacher"] if _names(job, alone) else None,
        **{name: job[name] for name in ("pretrained", "mean", "std")},
    )
    if images.train is None:
        raise UserError(f"{images.name} has no images to train on; name others with --data")
    return images


def _result(trained: Distilled, recipe: Recipe, images: Data, out: Path) -> dict[str, Any]:
    """What a training gave, for the table and the run folder."""
    from diswot.costs.counts import count_macs, count_params

    return {
        "losses": recipe.losses,
        "recipe": recipe.as_dict(),
        "test_accuracy": trained.test_accuracy,
        "train_accuracy": trained.history[-1]["train_accuracy"],
        "model_params": count_params(trained.student),
        "macs": count_macs(trained.student, images.image_shape),
        "epochs": recipe.epochs,
        "seconds": trained.seconds,
        "data": images.name,
        "classes": len(images.classes),
        **inputs.look(images),
        "out": str(out),
    }


def _names(job: Mapping[str, Any], alone: bool) -> bool:
    """Whether what looks at the images is a network by name, not an architecture."""
    return not alone or not job["student"].lstrip().startswith("{")


def _teacher(job: Mapping[str, Any], images: Data) -> nn.Module | None:
    if job["teacher"] == "none":
        return None
    from diswot.models.registry import TEACHERS, is_name

    weights, pretrained = job["teacher_weights"], job["pretrained"]
    if not is_name(job["teacher"]):
        raise unknown("teacher", job["teacher"], [*TEACHERS, "timm:NAME", "file.py:NAME"])
    if weights is None and not pretrained:
        raise UserError(_UNTRAINED.format(teacher=job["teacher"], data=images.name))
    return inputs.teaching(job["teacher"], images, weights, pretrained=pretrained)


def _show(results: Mapping[str, dict[str, Any]]) -> None:
    """A row a training, by folder; those of one run under each other, alone and taught."""
    from diswot.utils.units import show_count

    rows = []
    for folder, result in results.items():
        student = result["student"]
        losses = ", ".join(f"{weight:g} {name}" for name, weight in result["losses"].items())
        rows.append(
            [
                folder,
                student if isinstance(student, str) else console.show_params(student),
                f"{result['teacher']}: {losses}" if result["teacher"] else "alone",
                f"{result['test_accuracy']:.2f}",
                show_count(result["model_params"]),
                show_count(result["macs"]),
                str(result["epochs"]),
                f"{result['seconds']:.1f}",
            ]
        )
    columns = ["student", "taught by", "test accuracy %", "params", "MACs", "epochs", "seconds"]
    console.table("trained students", ["folder", *columns], rows, text=3)
