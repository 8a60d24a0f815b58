"""`diswot evaluate`."""

from __future__ import annotations

from typing import Any

from diswot.cli import console, inputs, options
from diswot.errors import UserError


def evaluate(
    teacher: options.Teacher,
    data: options.DataName = "digits",
    *,
    teacher_weights: options.Weights = None,
    pretrained: options.Pretrained = False,
    mean: options.Mean = None,
    std: options.Std = None,
    data_root: options.DataRoot = None,
    classes: options.Classes = None,
    image_size: options.ImageSize = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Test a trained teacher: do weights, size and scale fit the data?"""
    from diswot.costs.counts import count_macs, count_params
    from diswot.training.evaluation import measure_accuracy

    if teacher_weights is None and not pretrained:
        raise UserError("name the trained weights: --teacher-weights or --pretrained")
    with console.progress(quiet=quiet) as advance:
        look = inputs.normalisation(mean, std)
        master = inputs.master(
            teacher, teacher_weights, pretrained, data, classes, image_size, data_root, **look
        )
        images, model = master.images, master.model()
        if images.test is None:
            raise UserError(f"{images.name} has no images to test on; name others with --data")
        total = len(images.test)
        accuracy = measure_accuracy(model, images, lambda done: advance("testing", done, total))
    result = {
        "teacher": teacher,
        "data": images.name,
        "test_accuracy": accuracy,
        "test_images": total,
        "model_params": count_params(model),
        "macs": count_macs(model, images.image_shape),
        **inputs.look(images),
    }
    if as_json:
        console.show_json(result)
        return
    _show(result)
    for text in master.remarks():
        console.note(text, quiet=quiet)


def _show(result: dict[str, Any]) -> None:
    from diswot.utils.units import show_count

    rows = [
        ["test accuracy", f"{result['test_accuracy']:.2f} %"],
        ["test images", f"{result['test_images']:,}"],
        ["params", show_count(result["model_params"])],
        ["MACs", show_count(result["macs"])],
        ["image size", f"{result['image_size']} x {result['image_size']}"],
        *([n, " ".join(f"{value:.4g}" for value in result[n])] for n in ("mean", "std")),
    ]
    console.table(f"{result['teacher']} on {result['data']}", ["", ""], rows)
