"""The model card of an exported student, and the text around its Python source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from diswot.costs.counts import Shape, count, count_depth, count_params
from diswot.tasks.registry import find_result
from diswot.utils.units import show_count
from diswot.utils.untrusted import number

TITLE = "# Student of "
LICENCE = (
    "DisWOT's code is under Apache-2.0. The weights belong to the person who trained them; the "
    "licences of the data and of the teacher may restrict the use of the weights."
)


@dataclass(frozen=True)
class StudentDescription:
    """Description of a student and its origin.

    Attributes:
        name: Name of the run.
        image_shape: C, H, W.
        classes: Names of the K classes; empty if the data cannot be read.
        mean: Mean of each channel of images with values of 0 to 1; empty if not known.
        std: Standard deviation of each channel; empty if not known.
        params: Parameters of the architecture.
        facts: Rows of the model card, by heading.
        training: Result of the training that made the weights; None if untrained.
        timm_model: Name and options of a model that timm builds; None for other models.
        found: Whether a search found the student; the default is True.
        task: Name of the task; the default is classification.
        samples: Some normalised images of the data, B x C x H x W, on which a detector is checked.
            Default: none.
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
    task: str = "classification"
    samples: Tensor | None = field(default=None, repr=False, compare=False)

    def header(self) -> str:
        """Return the beginning of the Python file."""
        state = "trained" if self.training else "NOT trained: its weights are random"
        what = f"student network that DisWOT found, {state}"
        if not self.found:
            what = "network that DisWOT trained; no search is recorded"
        return f'''"""A {what}. Made by `diswot export`.

Needs torch and safetensors; README.md in this folder is the model card.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

IMAGE_SHAPE = {self.image_shape!r}  # channels, height, width
CLASSES = {self.classes!r}
MEAN, STD = {self.mean!r}, {self.std!r}  # by channel, for values of 0 to 1'''

    def loader(self, network: str = "Student()") -> str:
        """Return the end of the Python file: the function that loads the weights."""
        return f'''def load(weights: str | Path = Path(__file__).with_name("student.safetensors")):
    """Return the network with its weights, in evaluation mode."""
    model = {network}
    model.load_state_dict(load_file(weights))
    return model.eval()
'''

    def timm_source(self) -> str:
        """Return the Python file of a model that timm builds."""
        assert self.timm_model is not None
        name, options = self.timm_model
        header = self.header().replace("Needs torch and", "Needs torch, timm and")
        header = header.replace("import torch\n", "import timm\n").replace(
            "\nfrom torch import nn", ""
        )
        given = "".join(f", {key}={value!r}" for key, value in options.items())
        return header + "\n\n\n" + self.loader(f"timm.create_model({name!r}{given})")

    def card(self, kind: str, use: str, names: list[str], checked: str) -> str:
        """Return the model card in Markdown."""
        lines = [f"{TITLE}{_code(self.name)}", ""]
        if self.training is None:
            lines += [
                "**Not trained: the weights are random.** Train it with `diswot distill`.",
                "",
            ]
        lines += ["| | |", "|---|---|"]
        lines += [f"| {key} | {_cell(value)} |" for key, value in self._rows().items()]
        lines += [
            "",
            "## Architecture",
            "",
            *(f"- {_code(name)}: {_code(value)}" for name, value in self.params.items()),
            "",
        ]
        if self.mean:
            scaled = f"(image / 255 - {list(self.mean)}) / {list(self.std)}"
            shape = " x ".join(map(str, self.image_shape))
            batch = 1 if self.task == "detection" else "B"
            lines += [
                "## Images",
                "",
                f"float32, {batch} x {shape}: `{scaled}` for each channel.",
                "",
            ]
        if self.classes:
            shown = ", ".join(_code(name) for name in self.classes)
            order = "labels, from 1" if self.task == "detection" else "logits"
            lines += [f"Classes in the order of the {order}: {shown}.", ""]
        lines += [f"## Files ({kind})", "", ", ".join(map(_code, names)) + ". " + checked, ""]
        lines += ["```python", use, "```", "", "## Licence", "", LICENCE, ""]
        return "\n".join(lines)

    def _rows(self) -> dict[str, Any]:
        rows: dict[str, Any] = {} if self.task == "classification" else {"task": self.task}
        rows |= {key: value for key, value in self.facts.items() if value not in (None, "", {})}
        if self.training is not None:
            result = self.training
            losses = result.get("losses") or {}
            weights = ", ".join(f"{w:g} {name}" for name, w in losses.items())
            rows["distilled from"] = result.get("teacher") or "none: trained alone"
            own = "the detector's own" if self.task == "detection" else "cross-entropy"
            rows["losses"] = weights or own
            rows["epochs"] = result.get("epochs")
            if (tested := find_result(result)) is not None:
                rows[f"{tested.measure}, %"] = f"{tested.percent:.2f}"
            if (coarse := number(result.get("test_map50"))) is not None:
                rows["test mAP at an IoU of 0.5, %"] = f"{coarse:.2f}"
            if (seen := number(result.get("train_accuracy"))) is not None:
                rows["training accuracy, %"] = f"{seen:.2f}"
        return rows


def sizes(model: nn.Module, image_shape: Shape) -> dict[str, str]:
    """Return the sizes of a network as rows of the model card."""
    counts = count(model, image_shape)
    return {
        "params": show_count(count_params(model)),
        "MACs": show_count(counts.macs),
        "operations that the MACs leave out": ", ".join(counts.uncounted),
        "depth": str(count_depth(model)),
    }


def with_other_formats(card: str, before: str) -> str:
    """Add the files in other formats from an earlier card of the same student."""
    head, (own,), licence = _sections(card)
    earlier, sections, _ = _sections(before)
    kept = [each for each in sections if earlier == head and _title(each) != _title(own)]
    return "".join([head, *sorted([own, *kept]), licence])


def _sections(card: str) -> tuple[str, list[str], str]:
    """Split a card into the part before the files, a section per format, and the licence."""
    files, end, licence = card.partition("## Licence\n")
    head, *formats = files.split("## Files (")
    return head, [f"## Files ({each}" for each in formats], end + licence


def _title(section: str) -> str:
    return section.partition("\n")[0]


def _code(text: object) -> str:
    """Quote text as Markdown code, on one line."""
    plain = " ".join(str(text).split()).replace("`", "'")
    return f"`{plain}`"


def _cell(value: object) -> str:
    return _code(value).replace("|", "\\|")
