"""Commands with dataclasses of options, as Typer reads and calls them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import pytest
import typer
from typer import Argument, Option
from typer.testing import CliRunner

from diswot.cli import app
from diswot.cli.grouping import grouped


@dataclass(frozen=True)
class Size:
    """Width and height.

    Attributes:
        width: Pixels from left to right,
            at least one.
        height: Pixels from top to bottom.
    """

    width: Annotated[int, Option(min=1)] = 3
    height: int = 4


@dataclass(frozen=True)
class Tall(Size):
    """Width, and a height that must be given.

    Attributes:
        height: Pixels from top to bottom, many.
    """

    height: int = field(kw_only=True)


calls: list[tuple[object, ...]] = []


@grouped("colour", "height")
def draw(
    place: Annotated[str, Argument(help="Where.")] = "here",
    *,
    size: Size,
    colour: Annotated[str, Option(help="Name of the colour.")] = "red",
    fill: Annotated[bool, Option("--fill", "-f", help="Fill it.")] = False,
) -> None:
    """Draw a rectangle."""
    calls.append((place, size, colour, fill))


@grouped()
def tall(*, size: Tall) -> None:
    """Draw a tall rectangle."""
    calls.append((size,))


@pytest.fixture
def commands() -> typer.Typer:
    calls.clear()
    made = typer.Typer(rich_markup_mode=None)
    made.command()(draw)
    made.command()(tall)
    return made


@pytest.mark.parametrize(
    ("line", "call"),
    [
        ("draw", ("here", Size(3, 4), "red", False)),
        ("draw there --height 9 -f", ("there", Size(3, 9), "red", True)),
        ("draw --colour blue --width 1", ("here", Size(1, 4), "blue", False)),
        ("tall --height 5", (Tall(width=3, height=5),)),
    ],
)
def test_options_are_packed(commands: typer.Typer, line: str, call: tuple[object, ...]) -> None:
    ran = CliRunner().invoke(commands, line.split())

    assert ran.exit_code == 0, ran.output
    assert calls == [call]


@pytest.mark.parametrize("line", ["draw --width 0", "draw --depth 1", "tall", "draw a b"])
def test_wrong_options_are_refused(commands: typer.Typer, line: str) -> None:
    assert CliRunner().invoke(commands, line.split()).exit_code == 2
    assert not calls


def test_help_lists_the_first_options_first(commands: typer.Typer) -> None:
    text = CliRunner().invoke(commands, ["draw", "--help"]).output

    assert "Draw a rectangle." in text and "Pixels from left to right, at least one." in text
    places = [text.index(f"--{name}") for name in ("colour", "height", "width", "fill")]
    assert places == sorted(places)
    other = CliRunner().invoke(commands, ["tall", "--help"]).output
    assert "from left to right" in other and "Pixels from top to bottom, many." in other


def test_an_option_is_there_once() -> None:
    with pytest.raises(AssertionError, match="an option is there twice"):

        @grouped()
        def wrong(*, size: Size, width: Annotated[int, Option(help="Again.")] = 1) -> None: ...


def test_every_option_has_a_help_that_stands_alone() -> None:
    """A sentence that begins with a capital or a name, and ends with a full stop."""
    helps = {
        f"{name} {param.opts[-1]}": param.help
        for name, command in typer.main.get_command(app).commands.items()  # type: ignore[attr-defined]
        for param in command.params
        if param.opts[-1] != "--help"
    }

    assert len(helps) > 150
    wrong = [name for name, text in helps.items() if not text or text[-1] not in ".?"]
    wrong += [name for name, text in helps.items() if text.startswith(("Of ", "Else", "Such"))]
    assert not wrong
