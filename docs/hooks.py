"""What `make docs` does besides MkDocs: formulas become MathML, which needs no script."""

from __future__ import annotations

import re
from typing import Any

from latex2mathml.converter import convert

_FENCED = re.compile(r"(^```.*?^```$|`[^`\n]*`)", re.MULTILINE | re.DOTALL)


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    r"""Turn `$$...$$` into a formula of its own line and `\(...\)` into one in the text."""
    parts = _FENCED.split(markdown)
    return "".join(part if i % 2 else _formulas(part) for i, part in enumerate(parts))


def _formulas(text: str) -> str:
    text = re.sub(r"\$\$(.+?)\$\$", lambda m: _mathml(m[1], "block"), text, flags=re.DOTALL)
    return re.sub(r"\\\((.+?)\\\)", lambda m: _mathml(m[1], "inline"), text)


def _mathml(formula: str, display: str) -> str:
    made = convert(" ".join(formula.split()), display=display)
    made = made.replace("|", "&#124;")  # which ends a cell of a table
    return f"\n\n<p>{made}</p>\n\n" if display == "block" else f"<span>{made}</span>"
