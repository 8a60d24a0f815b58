"""`diswot export --int8`: the images of the run, and the comparison of both files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from typer import Option

from diswot.cli import console, inputs
from diswot.errors import UserError

if TYPE_CHECKING:
    from diswot.data.dataset import Dataset
    from diswot.exporters.int8_comparison import FileMeasures, Int8Comparison
    from diswot.runs.rebuild import RecordedStudent


@dataclass(frozen=True)
class Int8Options:
    """Options of an INT8 file beside the ONNX file.

    Attributes:
        int8: Write an INT8 ONNX file, too, calibrated on training images; compare the accuracy on
            the test images, the latency and the size of both files.
        data: Images for --int8 (diswot list data); needs --int8. Default: those of RUN.
        data_root: Folder of CIFAR or ImageNet16; needs --int8. Default: that of RUN.
    """

    headings: ClassVar = {"INT8": "int8 data data_root"}

    int8: Annotated[bool, Option("--int8")] = False
    data: str | None = None
    data_root: Path | None = None


def check_options(options: Int8Options, kind: str) -> None:
    """Refuse options that do not go together, before anything is read."""
    if not options.int8:
        given = {"--data": options.data, "--data-root": options.data_root}
        if name := next((name for name, value in given.items() if value is not None), None):
            raise UserError(f"{name} goes with --int8")
        return
    if kind != "onnx":
        raise UserError(f"--int8 goes with --format onnx, not {kind}")
    from diswot.costs.onnx_program import check_onnx

    check_onnx("--int8")


def calibration_images(student: RecordedStudent, options: Int8Options) -> Dataset:
    """Return the images that the student saw, or those that the options name."""
    from diswot.runs import folder
    from diswot.training.checkpoint import WEIGHTS

    if student.training is None:
        raise UserError(
            "--int8 needs a trained student, whose accuracy it compares: train it first (diswot "
            "distill), or name its training with --trained"
        )
    recorded = student.networks
    named = {"data": options.data and inputs.data_from_root(options.data)}
    named["data_root"] = inputs.absolute(options.data_root)
    config = {**recorded.config, **{name: value for name, value in named.items() if value}}
    try:
        images = replace(recorded, config=config).images()
    except UserError as error:
        raise UserError(
            f"--int8 needs the images of the run; name them with --data: {error}"
        ) from error
    if images.task != "classification":
        raise UserError(f"--int8 is for classification, and {images.name} is for {images.task}")
    if not images.train or not images.test:
        part = "test" if images.train else "training"
        raise UserError(f"--int8: {images.name} has no {part} images; name others with --data")
    names = folder.recorded_classes(student.folder / WEIGHTS)
    if names and len(names) == len(images.classes) and names != list(images.classes):
        raise UserError(
            f"--int8: the classes of {images.name} are not those of the student in order"
        )
    if len(images.classes) != recorded.classes:
        counts = f"{len(images.classes)} classes, and the student {recorded.classes}"
        raise UserError(f"--int8: {images.name} has {counts}; name its images with --data")
    return images


def show(found: Int8Comparison) -> None:
    """Print a row for each file, the ratios, and the loss of accuracy in the last line."""
    rows = [_row("float32", found.float32), _row("INT8", found.int8)]
    columns = ["bytes", "test %", "ms an image", "10 to 90 %"]
    console.table("one image on one CPU thread, processor time", ["file", *columns], rows)
    median, low, high = found.time_ratio
    console.line(
        f"INT8 takes {median:.2f} ({low:.2f} to {high:.2f}) of the time of float32, median of "
        f"{found.turns} turns, and {found.size_ratio:.2f} of the bytes; calibrated on "
        f"{found.calibration_images} training images"
    )
    console.line(found.verdict)


def _row(name: str, file: FileMeasures) -> list[str]:
    median, low, high = (f"{1000 * seconds:.3f}" for seconds in file.seconds)
    return [name, f"{file.size:,}", f"{file.accuracy:.2f}", median, f"{low} to {high}"]
