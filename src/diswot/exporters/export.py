"""A student to take away: in a format of others, checked, with a model card."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from torch import nn

from diswot.errors import ExportFailed, UserError, unknown
from diswot.exporters.formats import FORMATS, check
from diswot.exporters.model_card import TITLE, About, with_other_formats
from diswot.training.evaluation import frozen
from diswot.utils import files

CARD = "README.md"


def export(student: nn.Module, out: str | Path, kind: str, about: About) -> list[Path]:
    """Write a network in a format, read it back and hold it to the network itself.

    Args:
        student: On the CPU; left as it is.
        out: Folder to write into; made if it is not there.
        kind: A key of `FORMATS`.
        about: For the model card, which is written beside it.

    Returns:
        The files, the model card last.

    Raises:
        UserError: The format is unknown, needs a package that is missing, or cannot hold this
            network; or a file cannot be written.
        ExportFailed: What was written does not compute what the network does; it is removed.
    """
    if kind not in FORMATS:
        raise unknown("format", kind, FORMATS)
    chosen, folder = FORMATS[kind], Path(out)
    card = folder / CARD
    before = _card(card)
    with frozen(student):
        try:
            written = chosen.write(student, folder, about)
        except (UserError, ExportFailed):
            raise
        except Exception as error:  # whatever an exporter raises of a network it cannot follow
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise UserError(f"the network cannot be written as {kind}: {reason}") from error
        try:
            difference = check(student, folder, chosen, about)
        except ExportFailed:
            for path in written:
                with suppress(OSError):
                    path.unlink()
            raise
    text = about.card(kind, chosen.use, [path.name for path in written], difference)
    text = with_other_formats(text, before)
    files.write(card, lambda temporary: Path(temporary).write_text(text, encoding="utf-8"))
    return [*written, card]


def _card(path: Path) -> str:
    """The model card that is there, or nothing; whatever else is there is not written over."""
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else TITLE
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}") from error
    if not text.startswith(TITLE):
        raise UserError(f"{path} is no model card of diswot; name another folder with --out")
    return text
