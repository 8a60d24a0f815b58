"""`diswot evaluate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diswot.cli import console, inputs, training
from diswot.cli.grouping import grouped
from diswot.cli.options import EvaluationDataOptions, OutputOptions, TrainedTeacherOptions
from diswot.errors import UserError

if TYPE_CHECKING:
    from diswot.data.dataset import Dataset


@grouped("teacher", "teacher_weights", "pretrained", "data")
def evaluate(
    *, teacher: TrainedTeacherOptions, data: EvaluationDataOptions, output: OutputOptions
) -> None:
    """Test a trained teacher: do weights, size and scale fit the data?"""
    from diswot.costs.counts import count_sizes
    from diswot.tasks.registry import task_of
    from diswot.tasks.task import table
    from diswot.training.evaluation import count_all

    if not teacher.has_weights:
        raise UserError("name the trained weights: --teacher-weights, --pretrained or --trained")
    with console.progress(quiet=output.quiet) as advance:
        named = inputs.named_teacher(teacher, data)
        images, model = named.images, named.model()
        if images.test is None:
            raise UserError(f"{images.name} has no images to test on; name others with --data")
        total = len(images.test)
        task = task_of(images)
        counts = count_all(model, images, lambda done: advance("testing", done, total))
    tested = task.results(counts, len(images.classes))
    by_class = table(task, tested, images.classes)
    result = {
        "teacher": teacher.teacher,
        "data": images.name,
        **tested.means,
        **({"by_class": dict(by_class)} if by_class else {}),
        "test_images": total,
        **count_sizes(model, images.image_shape),
        **images.image_facts,
    }
    if output.as_json:
        console.show_json(result)
        return
    _show(result, images)
    training.show_classes(teacher.teacher, result)
    console.note(*named.remarks(), quiet=output.quiet)


def _show(result: dict[str, Any], images: Dataset) -> None:
    from diswot.tasks.registry import task_of
    from diswot.utils.units import show_count

    frozen, task = "trainable_params" in result, task_of(images)
    _, height, width = images.image_shape
    rows = [
        [task.measure, f"{result[task.result]:.2f} %"],
        ["test images", f"{result['test_images']:,}"],
        ["params", show_count(result["model_params"])],
        *([["params trainable", show_count(result["trainable_params"])]] if frozen else []),
        ["MACs", show_count(result["macs"])],
        ["image size", f"{width} x {height}"],
        *([n, " ".join(f"{value:.4g}" for value in result[n])] for n in ("mean", "std")),
    ]
    console.table(f"{result['teacher']} on {result['data']}", ["", ""], rows)
