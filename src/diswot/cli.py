"""The command line: search, distill, score, list."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diswot import console
from diswot.errors import SearchFailed, UserError

if TYPE_CHECKING:
    from torch import nn

    from diswot.data import Batch, Data

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Find the student network that a teacher can teach best, without training; then teach it.",
)

Teacher = Annotated[str, typer.Option(help="Name (diswot list teachers), or file.py:function.")]
Weights = Annotated[
    Path | None, typer.Option(help="The trained teacher's weights: safetensors or a state dict.")
]
Space = Annotated[str, typer.Option(help="Name (diswot list spaces), or file.py:function.")]
DataName = Annotated[str, typer.Option("--data", help="Name (diswot list data), or a folder.")]
DataRoot = Annotated[Path | None, typer.Option(help="Where CIFAR lies or is put.")]
Classes = Annotated[int | None, typer.Option(help="Number of classes; for noise.")]
ImageSize = Annotated[int | None, typer.Option(help="Height and width in pixels.")]
BatchSize = Annotated[int, typer.Option(help="Images to score on.")]
Repeats = Annotated[int, typer.Option(help="Batches and initialisations to average over.")]
Init = Annotated[str, typer.Option(help="Weights to score with: gaussian, kaiming or default.")]
Seed = Annotated[int, typer.Option(min=0, help="Of everything random.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars, no notes.")]


@app.callback(invoke_without_command=True)
def _top(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        from diswot import __version__

        print(__version__)
    elif context.invoked_subcommand is None:
        print(context.get_help())


@app.command("search")
def _search(
    teacher: Teacher = "resnet56",
    space: Space = "s0",
    data: DataName = "noise",
    *,
    trials: Annotated[int, typer.Option(help="Candidates within the budget to score.")] = 100,
    max_params: Annotated[str | None, typer.Option(help="Such as 0.4M.")] = None,
    max_macs: Annotated[str | None, typer.Option(help="Of one image, such as 40M.")] = None,
    proxy: Annotated[str, typer.Option(help="Score (diswot list proxies).")] = "diswot",
    sampler: Annotated[str, typer.Option(help="evolution, random, tpe or nsga2.")] = "evolution",
    teacher_weights: Weights = None,
    data_root: DataRoot = None,
    classes: Classes = None,
    image_size: ImageSize = None,
    batch_size: BatchSize = 64,
    repeats: Repeats = 1,
    init: Init = "gaussian",
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Run folder, to keep everything in.")] = None,
    storage: Annotated[
        str | None, typer.Option(help="Optuna storage URL, instead of a journal in the run folder.")
    ] = None,
    study: Annotated[str, typer.Option(help="Name of the study in the storage.")] = "diswot",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a stopped search.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Search a space for the best student of a teacher, training nothing."""
    from diswot import files, spaces
    from diswot.budget import Budget, parse_count
    from diswot.search import Progress, search

    _quiet_optuna()
    limits = Budget(
        max_params=parse_count(max_params) if max_params else None,
        max_macs=parse_count(max_macs) if max_macs else None,
    )
    images = _data(data, classes, image_size, data_root)
    count = len(images.classes)
    config = {
        "teacher": teacher,
        "teacher_weights": teacher_weights and str(teacher_weights),
        "space": space,
        "data": data,
        "data_root": data_root and str(data_root),
        "classes": count,
        "image_size": images.size,
        "batch_size": batch_size,
    }
    network = _teacher(teacher, count, teacher_weights)
    build, batches = spaces.get(space, count), _batches(images, batch_size, repeats, seed)
    if out is not None and not (resume and (out / RUN).exists()):
        _refuse_used(out / RUN)
        files.write_json(out / RUN, {**_facts(), "config": config})
    with console.progress("scoring", quiet=quiet or as_json) as advance:

        def on_trial(p: Progress) -> None:
            advance(p.done, p.total, "" if p.best is None else f"best {p.best:.4f}")

        found = search(
            network,
            build,
            batches,
            trials=trials,
            proxy=proxy,
            budget=limits,
            sampler=sampler,
            init=init,
            seed=seed,
            trained_teacher=teacher_weights is not None,
            storage=storage or out,
            study_name=study,
            resume=resume,
            config=config,
            on_trial=on_trial,
        )
    result = found.as_dict()
    if out is not None:
        files.write_json(out / FOUND, result)
    if as_json:
        console.show_json(result)
        return
    _show_found(result, proxy)
    if found.trials < trials and not found.exhaustive:
        console.note(f"stopped at {found.trials} trials: nothing new fits the budget", quiet=quiet)
    if out is not None:
        console.note(f"kept in {out}; next: diswot distill {out}", quiet=quiet)


@app.command("score")
def _score(
    student: Annotated[str, typer.Option(help="Parameters as JSON, or a network's name.")],
    teacher: Teacher = "resnet56",
    space: Space = "s0",
    data: DataName = "noise",
    *,
    proxies: Annotated[str, typer.Option(help="Names with commas, or all.")] = "all",
    teacher_weights: Weights = None,
    data_root: DataRoot = None,
    classes: Classes = None,
    image_size: ImageSize = None,
    batch_size: BatchSize = 64,
    repeats: Repeats = 1,
    init: Init = "gaussian",
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score one student, training nothing."""
    from statistics import fmean, stdev

    from diswot.proxies import PROXIES, get, scorer

    names = list(PROXIES) if proxies == "all" else [n.strip() for n in proxies.split(",")]
    for name in names:
        get(name)
    images = _data(data, classes, image_size, data_root)
    count = len(images.classes)
    build, params = _student(student, space, count)
    fixed = scorer(
        _teacher(teacher, count, teacher_weights),
        _batches(images, batch_size, repeats, seed),
        init=init,
        seed=seed,
        trained_teacher=teacher_weights is not None,
    )
    try:
        values = fixed.score_build(build, names)
    except ArithmeticError as error:
        raise UserError(f"the student has no finite score: {error}") from error
    scores = {name: fmean(v) for name, v in values.items()}
    errors = {n: stdev(v) / len(v) ** 0.5 if len(v) > 1 else None for n, v in values.items()}
    if as_json:
        console.show_json(
            {"student": params, "scores": scores, "standard_errors": errors, "repeats": values}
        )
        return
    rows = [[n, f"{scores[n]:.6g}", "" if errors[n] is None else f"{errors[n]:.2g}"] for n in names]
    console.table(f"scores of {student}", ["proxy", "score", "standard error"], rows)


@app.command("distill")
def _distill(
    run: Annotated[Path | None, typer.Argument(help="Folder of a search.")] = None,
    *,
    student: Annotated[
        str | None, typer.Option(help="Parameters as JSON, or a network's name; else the found.")
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(help="Name, or none to train alone; else the search's.")
    ] = None,
    teacher_weights: Weights = None,
    space: Annotated[str | None, typer.Option(help="Else the search's.")] = None,
    data: Annotated[str | None, typer.Option(help="Else the search's.")] = None,
    data_root: DataRoot = None,
    image_size: ImageSize = None,
    epochs: Annotated[int, typer.Option(help="Passes over the training images.")] = 240,
    batch_size: Annotated[int, typer.Option(help="Images a step.")] = 64,
    lr: Annotated[float, typer.Option(help="Highest learning rate.")] = 0.05,
    schedule: Annotated[str, typer.Option(help="cosine or onecycle.")] = "cosine",
    losses: Annotated[
        str, typer.Option(help="Weighted knowledge distances, such as kd:0.9,relation:1.")
    ] = "kd:1",
    cross_entropy: Annotated[float, typer.Option(help="Weight of the labels' loss.")] = 1.0,
    flip: Annotated[bool | None, typer.Option(help="Mirror images; not by default for digits.")] = (
        None
    ),
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16.")] = "auto",
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Folder; else RUN/distilled.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a stopped one.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train the found student, or any network, from a trained teacher or alone."""
    from diswot import files
    from diswot.budget import count_macs, count_params
    from diswot.distill import distill
    from diswot.initialise import fresh
    from diswot.recipe import Recipe, parse_losses

    config = files.read_json(run / RUN)["config"] if run else {}
    name = data or config.get("data") or "digits"
    images = _data(name, None, image_size, data_root or config.get("data_root"))
    count = len(images.classes)
    if run and student is None:
        student = json.dumps(files.read_json(run / FOUND)["best"]["params"])
    if student is None:
        raise UserError("name a student: the folder of a search, or --student")
    build, params = _student(student, space or config.get("space") or "s0", count)
    master = teacher or config.get("teacher")
    weights = teacher_weights or config.get("teacher_weights")
    taught = None
    if master and master != "none":
        if weights is None:
            raise UserError(_UNTRAINED.format(master=master, data=name))
        taught = _teacher(master, count, Path(weights))
    recipe = Recipe(
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        schedule=schedule,
        losses=parse_losses(losses) if taught else {},
        cross_entropy=cross_entropy,
        flip=name != "digits" if flip is None else flip,
        precision=precision,
        seed=seed,
    )
    place = out or (run / "distilled" if run else None)
    if place is None:
        raise UserError("name a folder to keep the training in: --out")
    with console.progress("training", quiet=quiet or as_json) as advance:

        def on_step(step: int, steps: int, row: dict[str, float]) -> None:
            accuracy = row.get("test_accuracy")
            advance(step, steps, "" if accuracy is None else f"test {accuracy:.2f} %")

        model = fresh(build, "default", seed)
        trained = distill(model, taught, images, recipe, out=place, resume=resume, on_step=on_step)
    result = {
        "student": params,
        "teacher": master if taught else None,
        "test_accuracy": trained.test_accuracy,
        "train_accuracy": trained.history[-1]["train_accuracy"],
        "model_params": count_params(model),
        "macs": count_macs(model, images.image_shape),
        "epochs": epochs,
        "seconds": trained.seconds,
        "out": str(place),
    }
    files.write_json(place / TRAINED, {**_facts(), "result": result})
    if as_json:
        console.show_json(result)
        return
    _show_trained(result)


@app.command("list")
def _list(
    what: Annotated[
        str, typer.Argument(help="teachers, spaces, data, proxies, losses, samplers or inits.")
    ] = "all",
    *,
    as_json: Json = False,
) -> None:
    """List what can be named."""
    from diswot.errors import unknown

    names = _names()
    if what != "all" and what not in names:
        raise unknown("list", what, names)
    wanted = names if what == "all" else {what: names[what]}
    if as_json:
        console.show_json(wanted)
        return
    for title, rows in wanted.items():
        console.table(title, ["name", "what", "from"], [[n, *row] for n, row in rows.items()])


RUN, FOUND, TRAINED = "run.json", "found.json", "trained.json"

_UNTRAINED = (
    "a teacher must be trained to teach; give --teacher-weights, or train it first: "
    "diswot distill --student {master} --teacher none --data {data} --out FOLDER"
)


def _names() -> dict[str, dict[str, list[str]]]:
    from diswot.data import SETS
    from diswot.initialise import INITS
    from diswot.knowledge import KNOWLEDGE
    from diswot.proxies import PROXIES
    from diswot.search import SAMPLERS
    from diswot.spaces import SPACES
    from diswot.teachers import TEACHERS

    return {
        "teachers": {name: ["CIFAR ResNet", "He et al., CVPR 2016"] for name in TEACHERS},
        "spaces": {n: [f"{s.summary}; {s.size:,} networks", s.paper] for n, s in SPACES.items()},
        "data": {name: [(f.__doc__ or "").split(".")[0], ""] for name, f in SETS.items()},
        "proxies": {name: [row.summary, row.paper] for name, row in PROXIES.items()},
        "losses": {name: [row.summary, row.paper] for name, row in KNOWLEDGE.items()},
        "samplers": {name: ["", ""] for name in SAMPLERS},
        "inits": {name: [(f.__doc__ or "").split(".")[0], ""] for name, f in INITS.items()},
    }


def _data(name: str, classes: int | None, size: int | None, root: str | Path | None) -> Data:
    from diswot import data

    images = data.get(name, classes=classes, size=size, root=root)
    if classes is not None and classes != len(images.classes):
        raise UserError(f"{name} has {len(images.classes)} classes, not {classes}")
    return images


def _batches(images: Data, size: int, repeats: int, seed: int) -> list[Batch]:
    if repeats < 1:
        raise UserError(f"repeats must be at least 1, not {repeats}")
    return [images.batch(size, seed, repeat) for repeat in range(repeats)]


def _teacher(name: str, classes: int, weights: Path | None) -> nn.Module:
    from diswot import teachers

    model = teachers.get(name, classes)
    if weights is not None:
        teachers.load_weights(model, weights)
    return model


def _student(text: str, space: str, classes: int) -> tuple[Any, Any]:
    """How to build a student named by a JSON dict of parameters, or as teachers are."""
    from functools import partial

    from diswot import spaces, teachers

    if not text.lstrip().startswith("{"):
        teachers.get(text, classes)
        return partial(teachers.get, text, classes), text
    try:
        params = json.loads(text)
    except ValueError as error:
        raise UserError(f"the student's parameters are no JSON: {error}") from error
    build = spaces.get(space, classes)
    spaces.network(build, params)
    return partial(spaces.network, build, params), params


def _refuse_used(path: Path) -> None:
    if path.exists():
        raise UserError(f"{path.parent} holds a search already; add --resume, or name another")


def _facts() -> dict[str, Any]:
    from diswot import facts

    return {
        "command": facts.command(),
        "versions": facts.versions(),
        "hardware": facts.hardware(),
    }


def _quiet_optuna() -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)


def _show_found(result: dict[str, Any], proxy: str) -> None:
    from diswot.budget import show_count

    rows = [
        [
            console.show_params(row["params"]),
            f"{row['score']:.5g}",
            show_count(row["model_params"]),
            show_count(row["macs"]),
        ]
        for row in result["top"]
    ]
    counts = ", ".join(f"{result[n]} {n}" for n in ("scored", "reused", "rejected", "failed"))
    title = f"best of {result['trials']} students ({counts}) in {result['seconds']:.1f} s"
    console.table(title, ["student", proxy, "params", "MACs"], rows)


def _show_trained(result: dict[str, Any]) -> None:
    from diswot.budget import show_count

    student = result["student"]
    row = [
        student if isinstance(student, str) else console.show_params(student),
        result["teacher"] or "none",
        f"{result['test_accuracy']:.2f}",
        show_count(result["model_params"]),
        show_count(result["macs"]),
        f"{result['seconds']:.1f}",
    ]
    columns = ["student", "teacher", "test accuracy %", "params", "MACs", "seconds"]
    console.table(f"after {result['epochs']} epochs; kept in {result['out']}", columns, [row])


# Typer brings its own copy of Click and exports only some of the errors, of one family.
_USAGE: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0, 1 where nothing could be found, 2 for a user's mistake."""
    try:
        typer.main.get_command(app).main(arguments, prog_name="diswot", standalone_mode=False)
    except UserError as error:
        _leave(str(error), 2)
    except _USAGE as error:
        _leave(error.format_message(), 2)
    except (SearchFailed, FloatingPointError) as error:
        _leave(str(error), 1)
    except (KeyboardInterrupt, typer.Abort):
        _leave("stopped; what is in the run folder goes on with --resume", 130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)


def _leave(message: str, status: int) -> None:
    print(f"diswot: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)
