"""The help of the commands: options under headings, examples at the end."""

from __future__ import annotations

from textwrap import wrap
from typing import Any

from typer.core import TyperCommand

USUAL = "Usual options"
LAST = "Output"  # heading of --json, --quiet and --help
COLUMN = 24  # characters of the column of names

EXAMPLES = {
    "search": (
        "search --teacher resnet20 --data noise --max-params 0.1M --out first",
        "search --teacher resnet56 --teacher-weights teacher.safetensors \\\n"
        "      --data cifar100 --space subnet:resnet56 --max-macs 40M --verify 3 \\\n"
        "      --out second",
    ),
    "score": (
        "score --student resnet20 --teacher resnet56 --data noise",
        "score --student resnet20 --proxies params,macs,naswot --latency --json",
    ),
    "distill": (
        "distill first --data digits --teacher-weights teacher.safetensors",
        "distill --student resnet20 --teacher none --data digits --out alone",
    ),
    "doctor": ("doctor first --data digits --teacher-weights teacher.safetensors",),
    "evaluate": (
        "evaluate --teacher resnet20 --teacher-weights teacher.safetensors",
        "evaluate --teacher timm:resnet18 --pretrained --data photos",
    ),
    "rank": (
        "rank --table accuracies.csv --space s0 --limit 100 --out study",
        "rank --from study/scores.csv --target distilled",
    ),
    "report": ("report first", "report first --no-networks --out page.html"),
    "compare": ("compare first second", "compare first second third --out comparison.html"),
    "export": (
        "export first --format torch",
        "export first --trained first/distilled --int8 --data digits",
    ),
    "list": ("list proxies", "list spaces --json"),
}


class Command(TyperCommand):
    """A command whose help lists each option under its heading, and ends with examples."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the parts of the usage line, without braces around a required argument."""
        pieces = super().collect_usage_pieces(ctx)
        return [piece.replace("{", "").replace("}", "") for piece in pieces]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, and the options of each heading, in columns of one width."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": []}
        for each in self.get_params(ctx):
            name, text = each.get_help_record(ctx) or ("", "")
            if each.param_type_name == "argument":
                sections["Arguments"].append((name.split()[0].strip("[]{}"), text))
            else:
                heading = getattr(each, "rich_help_panel", None) or LAST
                sections.setdefault(heading, []).append((name, text))
        sections[LAST] = sections.pop(LAST)
        for heading, records in sections.items():
            if records:
                with formatter.section(heading):
                    for name, text in records:
                        formatter.write(_entry(name, text, formatter.width))

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples, each on a line that can be copied."""
        with formatter.section("Examples"):
            for example in EXAMPLES[str(self.name)]:
                formatter.write(f"  diswot {example}\n")


def _entry(name: str, text: str, width: int) -> str:
    """Return the lines of an option, whose names are not broken at a hyphen."""
    indent = " " * (COLUMN + 4)
    lines = wrap(
        " ".join(text.split()),
        max(width, COLUMN + 16),
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )
    if len(name) > COLUMN:
        return "\n".join([f"  {name}", *lines, ""])
    first, *others = lines or [""]
    return "\n".join([f"  {name:{COLUMN}}  {first.strip()}", *others, ""])
