"""The students of `headline.py` in INT8, for the device: accuracy, size and time of one image.

    python benchmarks/headline_int8.py --data CIFAR100 --teacher-weights FILE

Each student whose trained weights `headline.py train` kept is written as ONNX and quantised as by
`diswot export --int8`; ONNX Runtime runs both files turn by turn on one thread. Each student adds a
line to a table; what is there is not repeated.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnxruntime
from headline import LoadedCell, load, parsed, trainings, weights_file
from short_training import append, is_there, machine

from diswot.exporters.export import export
from diswot.exporters.int8 import export_int8
from diswot.exporters.model_card import StudentDescription
from diswot.models.weights import load_weights
from diswot.utils import jsonl


def quantised(place: LoadedCell, row: Mapping[str, Any], weights: Path) -> dict[str, Any]:
    """Return the measures of a trained student in float32 and in INT8."""
    student, data = place.cell.build(row["params"]), place.images
    load_weights(student, weights)
    about = StudentDescription(
        row["pick"], place.cell.shape, data.classes, data.mean, data.std, {}, {}, {}
    )
    with TemporaryDirectory() as folder:
        export(student.eval(), folder, "onnx", about)
        found = export_int8(Path(folder), about, data)
    median, low, high = found.time_ratio
    return {
        "float32": f"{found.float32.accuracy:.2f}", "int8": f"{found.int8.accuracy:.2f}",
        "size_ratio": f"{found.size_ratio:.3f}", "time_ratio": f"{median:.3f}",
        "time_ratio_10": f"{low:.3f}", "time_ratio_90": f"{high:.3f}",
        "tests": found.test_images, "onnxruntime": onnxruntime.__version__, **machine(),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--int8", type=Path, default=Path("docs/tables/headline_int8.csv"))
    options = parsed(parser)
    places: dict[str, LoadedCell] = {}
    for row, key in trainings(list(jsonl.read_lines(options.picked)), options):
        line, weights = {"pick": row["pick"], **key}, weights_file(options, key)
        if not weights.exists() or is_there(options.int8, line):
            continue
        name = row["cell"]
        if name not in places:
            places[name] = load(name, options)
        line |= quantised(places[name], row, weights)
        append(options.int8, line)
        print(line, flush=True)


if __name__ == "__main__":
    main()
