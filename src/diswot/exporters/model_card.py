"""What is known of an exported student: its model card, and the text around its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from diswot.costs.counts import Shape
from diswot.utils.units import show_count

TITLE = "# Student of "
LICENCE = (
    "DisWOT's code is under Apache-2.0. The weights are of whoever trained them; the licences of "
    "the data and of the teacher may bind their use."
)


@dataclass(frozen=True)
class About:
    """A student and where it comes from.

    Attributes:
        name: Of the run.
        image_shape: C, H, W.
        classes: Names of the K classes; empty where the data are out of reach.
        mean: What is subtracted from each channel of images of 0 to 1; empty if not known.
        std: What they are divided by then.
        params: The architecture's choices.
        facts: What the model card lists, by heading.
        training: The result of the training whose weights these are; None if untrained.
        timm_model: Name and options of a model that timm makes; None for all others.
        found: Whether a search found it; else it is one that was trained.
    """

    name: str
    image_shape: Shape
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    params: Mapping[str, Any]
    facts: Mapping[str, Any]
    training: Mapping[str, Any] | None
    timm_model: tuple[str, Mapping[str, Any]] | None = field(default=None)
    found: bool = True

    def header(self) -> str:
        """The beginning of a Python file."""
        state = "trained" if self.training else "NOT trained: its weights are random"
        what = f"student network that DisWOT found, {state}"
        if not self.found:
            what = "network that DisWOT trained; no search is recorded with it"
        return "\n".join(
            [
                f'"""A {what}. Made by `diswot export`.',
                "",
                "Needs torch and safetensors; see README.md beside it.",
                '"""',
                "",
                "from pathlib import Path",
                "",
                "import torch",
                "from safetensors.torch import load_file",
                "from torch import nn",
                "",
                f"IMAGE_SHAPE = {self.image_shape!r}  # channels, height, width",
                f"CLASSES = {self.classes!r}",
                f"MEAN, STD = {self.mean!r}, {self.std!r}  # of images of 0 to 1, by channel",
            ]
        )

    def loader(self, network: str = "Student()") -> str:
        """The end of a Python file."""
        return "\n".join(
            [
                'def load(weights: str | Path = Path(__file__).with_name("student.safetensors")):',
                '    """The network with its weights, in evaluation mode."""',
                f"    model = {network}",
                "    model.load_state_dict(load_file(weights))",
                "    return model.eval()",
                "",
            ]
        )

    def timm_source(self) -> str:
        """A Python file for a model of timm's."""
        assert self.timm_model is not None
        name, options = self.timm_model
        header = self.header().replace("Needs torch and", "Needs torch, timm and")
        header = header.replace("import torch\n", "import timm\n").replace(
            "\nfrom torch import nn", ""
        )
        given = "".join(f", {key}={value!r}" for key, value in options.items())
        return header + "\n\n\n" + self.loader(f"timm.create_model({name!r}{given})")

    def card(self, kind: str, use: str, names: list[str], difference: float) -> str:
        """The model card, in Markdown."""
        lines = [f"{TITLE}{_code(self.name)}", ""]
        if self.training is None:
            lines += [
                "**Not trained: the weights are random.** Train it with `diswot distill`.",
                "",
            ]
        lines += ["| | |", "|---|---|"]
        lines += [f"| {key} | {_cell(value)} |" for key, value in self._rows().items()]
        lines += ["", "## Architecture", "", *_listed(self.params), ""]
        if self.mean:
            scaled = f"(image / 255 - {list(self.mean)}) / {list(self.std)}"
            shape = " x ".join(map(str, self.image_shape))
            lines += ["## Images", "", f"float32, B x {shape}: `{scaled}`, by channel.", ""]
        if self.classes:
            shown = ", ".join(_code(name) for name in self.classes)
            lines += [f"Classes, in the order of the logits: {shown}.", ""]
        checked = f"Checked after writing: logits within {difference:.1g} of the network's."
        lines += [f"## Files ({kind})", "", ", ".join(map(_code, names)) + ". " + checked, ""]
        lines += ["```python", use, "```", "", "## Licence", "", LICENCE, ""]
        return "\n".join(lines)

    def _rows(self) -> dict[str, Any]:
        rows = {key: value for key, value in self.facts.items() if value not in (None, "", {})}
        if self.training is not None:
            result = self.training
            losses = result.get("losses") or {}
            weights = ", ".join(f"{w:g} {name}" for name, w in losses.items())
            rows["taught by"] = result.get("teacher") or "none: trained alone"
            rows["losses"] = weights or "cross-entropy"
            rows["epochs"] = result.get("epochs")
            rows["test accuracy, %"] = f"{result['test_accuracy']:.2f}"
            rows["training accuracy, %"] = f"{result['train_accuracy']:.2f}"
        return rows


def sizes(params: int, macs: int, depth: int) -> dict[str, str]:
    """Rows of the model card."""
    return {"params": show_count(params), "MACs": show_count(macs), "depth": str(depth)}


def with_other_formats(card: str, before: str) -> str:
    """A model card, with what one of the same student says of files in other formats."""
    head, (own,), licence = _sections(card)
    known, others, _ = _sections(before)
    kept = [each for each in others if known == head and _title(each) != _title(own)]
    return "".join([head, *sorted([own, *kept]), licence])


def _sections(card: str) -> tuple[str, list[str], str]:
    """What comes before the files, a text a format, and what comes after."""
    files, end, licence = card.partition("## Licence\n")
    head, *formats = files.split("## Files (")
    return head, [f"## Files ({each}" for each in formats], end + licence


def _title(section: str) -> str:
    return section.partition("\n")[0]


def _listed(params: Mapping[str, Any]) -> list[str]:
    return [f"- {_code(name)}: {_code(value)}" for name, value in params.items()]


def _code(text: object) -> str:
    """Text that Markdown takes as it is."""
    plain = " ".join(str(text).split()).replace("`", "'")
    return f"`{plain}`"


def _cell(value: object) -> str:
    return _code(value).replace("|", "\\|")
