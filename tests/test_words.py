"""The words of docstrings and pages: plain English, in sentences of a length that can be read."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
LOGS = {"score_log.md"}  # what was written while it was tried
FORBIDDEN = re.compile(
    r"\b(whatever|theirs|goes on with|is had|told|so many|crew|staff|examiner)\b", re.IGNORECASE
)
CODE = re.compile(r"^```.*?^```|^ {4}\S.*?$", re.MULTILINE | re.DOTALL)
LONGEST = 30  # words of a sentence


def docstrings() -> Iterator[tuple[str, str]]:
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                yield f"{path.name}:{getattr(node, 'lineno', 1)}", ast.get_docstring(node) or ""


def sources() -> Iterator[tuple[str, str]]:
    for path in sorted((ROOT / "src").rglob("*.py")):
        yield path.name, path.read_text()


def texts() -> Iterator[tuple[str, str]]:
    yield from docstrings()
    for page in PAGES:
        if page.name not in LOGS:
            yield page.name, CODE.sub("", page.read_text())


def sentences(text: str) -> Iterator[str]:
    """The sentences of a text; a row of a table, an item of a list and a paragraph end one."""
    for part in re.split(r"\n\s*\n|\n\s*(?=[-|*] |\d+\. )|\|", text):
        yield from re.split(r"(?<=[.:;?!])(?:\*\*)?\s", " ".join(part.split()))


def test_sentences_are_found() -> None:
    assert list(sentences("One two. Three:\n\n- four\n- five\n| six | seven |")) == [
        "One two.", "Three:", "- four", "- five", "", " six ".strip(), "seven", "",
    ]  # fmt: skip


def test_the_front_page_is_short() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 800


def test_words() -> None:
    found = [
        (place, word) for place, text in (*sources(), *texts()) for word in FORBIDDEN.findall(text)
    ]
    assert found == []


def test_sentences() -> None:
    long = [
        (place, sentence)
        for place, text in texts()
        for sentence in sentences(text)
        if len(sentence.split()) > LONGEST
    ]
    assert long == []
