"""What the command line shows."""

from __future__ import annotations

import io
import json
import re
import sys

import pytest

from diswot.cli import console


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class TestProgress:
    @pytest.mark.parametrize(("quiet", "tty"), [(True, True), (True, False), (False, False)])
    def test_silent(self, quiet: bool, tty: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        shown = Terminal() if tty else io.StringIO()
        monkeypatch.setattr(sys, "stderr", shown)
        with console.progress(quiet=quiet) as advance:
            advance("training", 1, 2, line=quiet)
        assert shown.getvalue() == ""

    @pytest.mark.parametrize("tty", [True, False])
    def test_prints_of_others_go_to_standard_error(
        self, tty: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        shown = Terminal() if tty else io.StringIO()
        monkeypatch.setattr(sys, "stderr", shown)
        with pytest.raises(KeyError), console.progress(quiet=False):
            print("a user's own")
            raise KeyError
        print("result")
        assert "a user's own" in shown.getvalue() and capsys.readouterr().out == "result\n"


def test_json_is_one_line_of_valid_json(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"a": [1.5, float("nan"), (float("-inf"), "ü\n")], "b": {"c": None, "d": True}}
    console.show_json(value)
    out = capsys.readouterr().out
    assert out.count("\n") == 1 and out.endswith("\n")
    expected = {"a": [1.5, None, [None, "ü\n"]], "b": {"c": None, "d": True}}
    assert json.loads(out, parse_constant=pytest.fail) == expected


def test_table_shows_brackets_and_aligns(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [["a[red]", "long text", "1"], ["b", "x", "1000"]]
    console.table("title [1]", ["name", "what", "[n]"], rows, text=2)
    out = capsys.readouterr().out
    assert "title [1]" in out and "a[red]" in out and "[n]" in out
    assert "x         " in out and "    1 " in out


def test_title_longer_than_its_table_stays_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    title = "best of 24 students (24 scored, 0 reused, 40 rejected, 0 failed) in 152.0 s " * 2
    console.table(title, ["name"], [["a"]])
    assert capsys.readouterr().out.splitlines()[0] == title


def test_note(capsys: pytest.CaptureFixture[str]) -> None:
    console.note("kept")
    console.note("kept", quiet=True)
    assert capsys.readouterr() == ("", "kept\n")


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_no_terminal_breaks_a_name(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["mobilenetv3_small_minimal_100", "default_inherited", "batch-normalisation"]
    rows = [[str(n), f"{name}=16 depth=3", "0.51234", "1.2M"] for n, name in enumerate(names)]
    shown = Terminal()
    monkeypatch.setattr(sys, "stdout", shown)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    console.table("best", ["", "student", "score", "params"], rows, text=2)
    text = re.sub("\x1b\\[[0-9;]*m", "", shown.getvalue())
    assert all(f"{name}=16" in text for name in names) and text.count("0.51234") == 3
    assert max(map(len, text.splitlines())) <= width
    assert ("score: 0.51234" in text) == (width < 60)


def test_intervals_stay_on_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    console.table("t", ["score", *["tau in deciles"] * 9], [["default", *["0.812\n0.71 0.88"] * 9]])
    assert capsys.readouterr().out.count("0.71 0.88") == 9
