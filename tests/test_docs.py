"""The pages: the tutorial runs as written, links lead somewhere, formulas need no script."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
BLOCKS = re.compile(r"^```(console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def hooks() -> ModuleType:
    pytest.importorskip("latex2mathml", reason="needs the extra docs")
    spec = importlib.util.spec_from_file_location("hooks", DOCS / "hooks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(words: list[str], folder: Path) -> None:
    """Run Python with some words in a folder; it must succeed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    ran = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert ran.returncode == 0, (words, ran.stderr)


@pytest.mark.slow
def test_the_tutorial_runs_as_written(tmp_path: Path) -> None:
    blocks = BLOCKS.findall((DOCS / "tutorial.md").read_text())
    assert len(blocks) > 8
    for kind, text in blocks:
        lines = [line for line in text.splitlines() if line] if kind == "console" else [text]
        for line in lines:
            words = ["-m", *shlex.split(line)] if kind == "console" else ["-c", line]
            run(words, tmp_path)
    for left in (
        "first/report.html",
        "first/export/student.py",
        "rank/rank.json",
        "mine/found.json",
    ):
        assert (tmp_path / "runs" / left).is_file()


@pytest.mark.slow
@pytest.mark.parametrize(("page", "out"), [("segmentation", "shapes"), ("detection", "boxes")])
def test_a_dense_task_runs_as_written(tmp_path: Path, page: str, out: str) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    text = (DOCS / f"{page}.md").read_text()
    commands = [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")]
    assert len(commands) > 6
    for line in commands:
        words = shlex.split(line)
        words = words[1:] if words[0] == "python" else ["-m", *words]
        run(words, tmp_path)
    assert (tmp_path / "runs" / out / "report.html").is_file()
    assert (tmp_path / "runs" / out / "export" / "student.onnx").is_file()


@pytest.mark.slow
def test_own_functions_run_as_written(tmp_path: Path) -> None:
    for kind, text in BLOCKS.findall((DOCS / "own_functions.md").read_text()):
        if name := re.match(r"# (\w+\.py)\n", text):
            (tmp_path / name[1]).write_text(text)
            continue
        lines = [line.removeprefix("$ ") for line in text.splitlines()]
        for line in lines if kind == "console" else [text]:
            words = ["-m", *shlex.split(line)] if kind == "console" else ["-c", line]
            run(words, tmp_path)
    assert (tmp_path / "runs" / "own" / "report.html").is_file()


PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def commands(page: Path) -> list[list[str]]:
    """The words of each call of `diswot` in a page, options left out in brackets included."""
    text = re.sub(r"\\\n\s*", " ", page.read_text())
    lines = re.findall(r"^ *(?:\$ |srun |.*-m )?(diswot [a-z].*)$", text, re.MULTILINE)
    plain = (re.sub(r"[\[\]]|#.*|\.\.\.", " ", line) for line in lines)
    return [shlex.split(line)[1:] for line in plain]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_pages_have_options_that_exist(page: Path) -> None:
    from typer.main import get_command

    from diswot.cli import app

    known = get_command(app).commands  # type: ignore[attr-defined]
    for name, *words in commands(page):
        if name not in known:
            assert not any(word.startswith("--") for word in words), f"no command {name}"
            continue  # a sentence that begins so
        options = {o for p in known[name].params for o in (*p.opts, *p.secondary_opts)}
        asked = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert asked <= options, (name, words)


def test_commands_in_pages_are_found() -> None:
    found = {page.name: len(commands(page)) for page in PAGES}
    assert found["README.md"] >= 2 and found["tutorial.md"] > 6 and found["distillation.md"] > 5


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if not target.startswith(("http://", "https://", "mailto:")) and "\\" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.name)
def test_functions_named_in_pages_exist(page: Path) -> None:
    for dotted in re.findall(r"\]\[(diswot\.[\w.]+)\]", page.read_text()):
        module, _, name = dotted.rpartition(".")
        try:
            importlib.import_module(dotted)
        except ModuleNotFoundError:
            assert hasattr(importlib.import_module(module), name), dotted


def test_pages_of_the_menu_exist() -> None:
    menu = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2]
    pages = re.findall(r"- ([\w/]+\.md)$", menu, re.MULTILINE)
    assert len(pages) > 10 and len(set(pages)) == len(pages)
    assert [page for page in pages if not (DOCS / page).is_file()] == []


def test_formulas_become_mathml() -> None:
    made = hooks().on_page_markdown("a \\(x_i | y\\) and `\\(code\\)`\n\n$$\\frac{1}{2}$$\n")
    assert "<math" in made and "<mfrac>" in made and "|" not in made
    assert "`\\(code\\)`" in made and "$$" not in made


@pytest.mark.parametrize("name", ["maths.md", "initialisation.md"])
def test_formulas_within_a_sentence_stand_on_one_line(name: str) -> None:
    text = (DOCS / name).read_text()
    assert text.count(r"\(") == len(re.findall(r"\\\(.+?\\\)", text)) > 20


def test_every_distance_and_score_has_its_formula_in_the_maths() -> None:
    from diswot.knowledge.registry import KNOWLEDGE
    from diswot.proxies.registry import PROXIES

    text = (DOCS / "maths.md").read_text()
    assert [name for name in {**KNOWLEDGE, **PROXIES} if f"[`{name}`]" not in text] == []


def test_the_maths_has_the_weights_of_the_default_score() -> None:
    from diswot.proxies.default_score import WEIGHTS

    text = (DOCS / "maths.md").read_text()
    for name, weight in WEIGHTS.items():
        factor = "" if weight == 1 else rf"{weight:g}\, "
        written = name.replace("_", r"\ ")
        assert rf"{factor}\mathrm{{{written}}}" in text
