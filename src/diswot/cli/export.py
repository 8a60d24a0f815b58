"""`diswot export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from diswot.cli import console, int8
from diswot.cli.grouping import grouped
from diswot.cli.int8 import Int8Options
from diswot.cli.options import OutputOptions
from diswot.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from diswot.data.dataset import Dataset
    from diswot.exporters.model_card import StudentDescription
    from diswot.runs.rebuild import RecordedNetworks, RecordedStudent

SAMPLES = 3  # test images that the file of a detector is checked on

_Run = Annotated[Path, Argument(metavar="RUN", help="Folder of a search or of a training.")]


@dataclass(frozen=True)
class ExportOptions:
    """Options of the format, the weights and the folder of an export.

    Attributes:
        kind: File format: onnx, torch or safetensors.
        trained: Folder of the training whose weights are exported. Default: RUN/distilled.
        out: Folder of the exported files. Default: RUN/export.
    """

    kind: Annotated[str, Option("--format")] = "onnx"
    trained: Path | None = None
    out: Path | None = None


@grouped("kind", "trained", "out")
def export(
    run: _Run,
    *,
    files: ExportOptions,
    quantised: Int8Options,
    output: OutputOptions,
) -> None:
    """Write a found or trained student, for use without diswot."""
    kind = files.kind
    int8.check_options(quantised, kind)
    from diswot.exporters.export import export as write
    from diswot.exporters.int8 import export_int8
    from diswot.runs.rebuild import recorded_student

    place, found = files.out or run / "export", None
    with console.progress(quiet=output.quiet) as advance:
        student = recorded_student(run, files.trained)
        images = int8.calibration_images(student, quantised) if quantised.int8 else None
        model = student.network()
        about = _about(run, student, model)
        written = write(model, place, kind, about)
        if images is not None:
            total = len(images.test or ())
            found = export_int8(place, about, images, lambda done: advance("testing", done, total))
            written.insert(1, found.int8.path)
    if student.training is None:
        text = "the student is not trained, so its weights are random; --trained names a training"
        console.note(text, quiet=output.quiet)
    if output.as_json:
        result = {"format": kind, "trained": student.training is not None}
        result["files"] = [str(path) for path in written]
        console.show_json(result | ({"int8": found.as_dict()} if found else {}))
        return
    console.note(f"written: {', '.join(map(str, written))}", quiet=output.quiet)
    if found is not None:
        int8.show(found)


def _about(run: Path, student: RecordedStudent, model: nn.Module) -> StudentDescription:
    """Return what the model card and the source file say of the student."""
    from diswot.exporters.model_card import StudentDescription, sizes

    networks, named = student.networks, student.student
    shape = networks.image_shape
    images = _images(networks)
    mean, std = (
        tuple(networks.config.get(name) or ()) if images is None else getattr(images, name)
        for name in ("mean", "std")
    )
    return StudentDescription(
        name=run.resolve().name,
        image_shape=shape,
        classes=() if images is None else images.classes,
        mean=mean,
        std=std,
        params={"network": named} if isinstance(named, str) else named,
        facts={**student.facts, **sizes(model, shape)},
        training=student.training,
        timm_model=_timm(networks, named),
        found=student.found,
        task=_task(images, student.training),
        samples=_samples(images),
    )


def _images(networks: RecordedNetworks) -> Dataset | None:
    """Return the images; None if they cannot be read."""
    try:
        return networks.images()
    except UserError:
        return None


def _task(images: Dataset | None, training: Mapping[str, Any] | None) -> str:
    """Return the name of the task: that of the images, or else of the recorded test result."""
    from diswot.tasks.registry import tested_task

    if images is not None:
        return images.task
    return tested_task(training or {}) or "classification"


def _samples(images: Dataset | None) -> Tensor | None:
    """Return some test images of a detector, normalised; None for other tasks."""
    if images is None or images.test is None or images.task != "detection":
        return None
    return images.normalise(images.test.read(range(min(SAMPLES, len(images.test)))))


def _timm(networks: RecordedNetworks, student: Any) -> tuple[str, dict[str, Any]] | None:
    """Return the name and the options of a network that timm makes; None for any other."""
    named = isinstance(student, str)
    prefix, _, name = (student if named else str(networks.config.get("space"))).partition(":")
    if prefix != ("timm" if named else "timm_zoo"):
        return None
    import timm

    name = name if named else str(student["model"])
    given: dict[str, Any] = {"num_classes": networks.classes}
    known = timm.get_pretrained_cfg(name)
    if known is not None and known.fixed_input_size:
        given["img_size"] = networks.image_size
    return name, given
