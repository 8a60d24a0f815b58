"""What `--help` shows of each command, and its examples.

The texts are in the folder `help`. To renew them after a change:

    python -m tests.cli.test_help
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from diswot.cli import app
from diswot.cli.help import EXAMPLES, USUAL

TEXTS = Path(__file__).parent / "help"
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def shown(name: str, width: int = 80, option: str = "--help") -> str:
    """Return the help of a command, as a terminal of a width shows it."""
    line = [*([] if name == "diswot" else [name]), option]
    ran = CliRunner().invoke(app, line, prog_name="diswot", terminal_width=width - 2)
    assert ran.exit_code == 0, ran.output
    return ran.output


@pytest.mark.parametrize("name", ["diswot", *COMMANDS])
def test_the_help_is_the_recorded_one(name: str) -> None:
    recorded = (TEXTS / f"{name}.txt").read_text()
    assert shown(name) == recorded, "if this is meant: python -m tests.cli.test_help"


def test_there_is_no_text_of_a_command_that_is_gone() -> None:
    assert {path.stem for path in TEXTS.glob("*.txt")} == {"diswot", *COMMANDS}


@pytest.mark.parametrize("name", ["diswot", *COMMANDS])
def test_the_short_option_shows_the_same(name: str) -> None:
    assert shown(name, option="-h") == shown(name)


@pytest.mark.parametrize("name", COMMANDS)
def test_no_name_of_an_option_is_broken(name: str) -> None:
    for width in (64, 80):
        text = shown(name, width)
        assert not re.search(r"--[\w-]*-$", text, re.MULTILINE)
        lines = text.partition("Examples:")[0].splitlines()
        assert max(map(len, lines)) <= width
    entries = set(re.findall(r"^  (?:-\w, )?(--[\w-]+)", shown(name), re.MULTILINE))
    assert entries == {each.opts[0] for each in COMMANDS[name].params if each.opts[0][0] == "-"} | {
        "--help"
    }


@pytest.mark.parametrize("name", [name for name in COMMANDS if len(COMMANDS[name].params) > 10])
def test_the_usual_options_are_few_and_first(name: str) -> None:
    headings = [each.rich_help_panel for each in COMMANDS[name].params if each.opts[0][0] == "-"]
    assert 3 <= headings.count(USUAL) <= 8
    assert headings[: headings.count(USUAL)] == [USUAL] * headings.count(USUAL)
    assert len(set(headings)) >= 4 and None not in headings


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_are_lines_that_the_command_takes(name: str) -> None:
    assert EXAMPLES[name]
    for example in EXAMPLES[name]:
        first, *words = shlex.split(example.replace("\\\n", ""))
        assert first == name and max(map(len, shown(name).splitlines())) <= 80
        COMMANDS[name].make_context(name, words)


def main() -> None:
    """Write the texts anew."""
    TEXTS.mkdir(exist_ok=True)
    for name in ("diswot", *COMMANDS):
        (TEXTS / f"{name}.txt").write_text(shown(name))


if __name__ == "__main__":
    main()
