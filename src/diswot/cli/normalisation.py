"""The options `--mean` and `--std`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diswot.errors import UserError

if TYPE_CHECKING:
    from diswot.models.preprocessing import Channels

_THREE = "three numbers with commas, or one, on the scale 0 to 1"


def normalisation(mean: str | None, std: str | None) -> dict[str, Channels | None]:
    """Return the values of `--mean` and `--std`, which only go together."""
    if (mean is None) != (std is None):
        raise UserError("give --mean and --std together")
    return {"mean": _channels(mean, "mean"), "std": _channels(std, "std")}


def _channels(text: str | None, option: str) -> Channels | None:
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise UserError(f"--{option} {text!r} is not {_THREE}") from error
    if len(values) not in (1, 3) or not all(0 <= value <= 1 for value in values):
        raise UserError(f"--{option} {text!r} is not {_THREE}")
    if option == "std" and not all(values):
        raise UserError(f"--std {text!r} has a zero, and images are divided by it")
    return values * 3 if len(values) == 1 else values
