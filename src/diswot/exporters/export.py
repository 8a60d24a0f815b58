"""Export of a student in one format, checked against the network, with a model card."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from torch import nn

from diswot.errors import ExportFailed, UserError, unknown
from diswot.exporters.detectors import USE, check_detector, save_detector
from diswot.exporters.formats import FORMATS, check, reason_of
from diswot.exporters.model_card import TITLE, StudentDescription, with_other_formats
from diswot.training.evaluation import frozen
from diswot.utils import files

CARD = "README.md"


def export(
    student: nn.Module, out: str | Path, kind: str, description: StudentDescription
) -> list[Path]:
    """Write a network in one format, read it back and compare its outputs with the network's.

    Args:
        student: Network on the CPU; it is left unchanged.
        out: Folder of the files; created if missing.
        kind: Format, a key of `FORMATS`.
        description: Facts for the model card.

    Returns:
        Paths of the files, the model card last.

    Raises:
        UserError: The format is unknown, needs a package that is not installed, or cannot express
            this network; or a file cannot be written.
        ExportFailed: The exported file computes other outputs than the network; it is removed.
    """
    if kind not in FORMATS:
        raise unknown("format", kind, FORMATS)
    chosen, folder, detects = FORMATS[kind], Path(out), description.task == "detection"
    if detects and kind != "onnx":
        raise UserError(
            f"a detector is written as onnx alone: {kind} cannot express how many boxes it finds"
        )
    card = folder / CARD
    before = read_card(card)
    with frozen(student):
        try:
            write = save_detector if detects else chosen.write
            written = write(student, folder, description)
        except UserError:
            raise
        except Exception as error:  # an exporter may raise anything for a network it cannot trace
            reason = reason_of(error)
            raise UserError(f"the network cannot be written as {kind}: {reason}") from error
        try:
            if detects:
                checked = check_detector(student, folder, description)
            else:
                within = check(student, folder, chosen, description)
                checked = f"Checked after writing: logits within {within:.1g} of the network's."
        except ExportFailed:
            for path in written:
                with suppress(OSError):
                    path.unlink()
            raise
    use = USE if detects else chosen.use
    text = description.card(kind, use, [path.name for path in written], checked)
    files.write_text(card, with_other_formats(text, before))
    return [*written, card]


def read_card(path: Path) -> str:
    """Read the model card in the folder; without one, return an empty card.

    Raises:
        UserError: The file is not a model card of diswot, so it must not be overwritten.
    """
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else TITLE
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}") from error
    if not text.startswith(TITLE):
        raise UserError(f"{path} is not a model card of diswot; name another folder with --out")
    return text
