"""What a batch costs, by its settings."""

from __future__ import annotations

import importlib
import math
from dataclasses import replace
from statistics import fmean, stdev
from typing import Any

import pytest
import torch
from tiny_training import (
    LEARNED,
    LONG,
    SHORT,
    curve,
    digits,
    distill,
    split_of,
    states_equal,
    teacher,
)
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax, one_hot
from toys import CLASSES, LinearHead, NoClassifier, seeded

from diswot.data.dataset import UNLABELLED, Dataset, whole
from diswot.data.loader import InMemoryImages
from diswot.errors import UserError
from diswot.knowledge.losses import outputs
from diswot.knowledge.registry import get_distance
from diswot.models.initialization import derive_seed
from diswot.training.batches import Batches
from diswot.training.distributed import Processes

ONCE = replace(SHORT, epochs=1, batch_size=330, crop=0)


def outputs_before(student: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of student and teacher for all training images, and the labels."""
    assert digits().train is not None
    images, labels = whole(digits().train)
    master = teacher().eval()
    normal = digits().normalise(images)
    with torch.no_grad():
        return student.train()(normal), master(normal), labels


def first_row(**settings: Any) -> dict[str, float]:
    return distill(teacher(), seeded(LinearHead), digits(), replace(ONCE, **settings)).history[0]


@pytest.mark.parametrize("temperature", [1.0, 8.0])
def test_temperature(temperature: float) -> None:
    student_logits, teacher_logits, _ = outputs_before(seeded(LinearHead))
    logs = [log_softmax(z / temperature, 1) for z in (student_logits, teacher_logits)]
    expected = temperature**2 * kl_div(*logs, reduction="batchmean", log_target=True)
    row = first_row(temperature=temperature, losses={"kd": 1.0, "relation": 1.0})
    assert row["kd"] == pytest.approx(float(expected), rel=1e-4)


def test_label_smoothing() -> None:
    student_logits, _, labels = outputs_before(seeded(LinearHead))
    target = 0.7 * one_hot(labels, CLASSES) + 0.3 / CLASSES
    expected = -(target * log_softmax(student_logits, 1)).sum(1).mean()
    row = first_row(label_smoothing=0.3)
    assert row["cross_entropy"] == pytest.approx(float(expected), rel=1e-4)


def test_cross_entropy_of_mixed_images() -> None:
    """It takes the mixed labels; a distance that looks at labels takes those of larger share."""
    recipe = replace(ONCE, mixup=1.0, label_smoothing=0.2, losses={"dkd": 1.0})
    student, master = seeded(LinearHead).train(), teacher().eval()
    assert digits().train is not None
    batches = Batches(digits(), recipe, Processes())
    ((part,),) = batches.epoch(InMemoryImages(*whole(digits().train)), derive_seed(0, 0))
    with torch.no_grad():
        student_logits, teacher_logits = student(part.images), master(part.images)
    assert part.targets is not None and 0.5 < float(part.targets.max(1).values.min()) < 1
    target = 0.8 * part.targets + 0.2 / CLASSES
    expected = -(target * log_softmax(student_logits, 1)).sum(1).mean()
    row = distill(teacher(), seeded(LinearHead), digits(), recipe).history[0]
    assert row["cross_entropy"] == pytest.approx(float(expected), rel=1e-4)
    labels = part.targets.argmax(1)
    seen = [outputs(logits, labels) for logits in (teacher_logits, student_logits)]
    assert row["dkd"] == pytest.approx(float(get_distance("dkd").distance(*seen)), rel=1e-4)
    right = 100 * float((student_logits.argmax(1) == labels).float().mean())
    assert row["train_accuracy"] == pytest.approx(right)


def blind(some: slice) -> Dataset:
    """The digits, of which these training images have no label."""
    train = digits().train
    assert train is not None
    images, labels = whole(train)
    labels = labels.clone()
    labels[some] = UNLABELLED
    return replace(digits(), train=split_of(images, labels))


@pytest.mark.parametrize("losses", [{"kd": 1.0}, {"kd": 1.0, "relation": 1.0}])
def test_images_without_labels_have_no_cross_entropy(losses: dict[str, float]) -> None:
    recipe = replace(ONCE, losses=losses)
    student_logits, teacher_logits, labels = outputs_before(seeded(LinearHead))
    row = distill(teacher(), seeded(LinearHead), blind(slice(100, None)), recipe).history[0]
    expected = cross_entropy(student_logits[:100], labels[:100])
    assert row["cross_entropy"] == pytest.approx(float(expected), rel=1e-4)
    full = distill(teacher(), seeded(LinearHead), digits(), recipe).history[0]
    assert all(row[name] == pytest.approx(full[name], rel=1e-5) for name in losses)
    # The teacher's class counts as the label of the rest.
    filled = torch.cat((labels[:100], teacher_logits[100:].argmax(1)))
    right = 100 * float((student_logits.argmax(1) == filled).float().mean())
    assert row["train_accuracy"] == pytest.approx(right)


@pytest.mark.parametrize("name", ["dkd", "semantic"])
def test_distances_that_need_labels_take_the_teachers_classes(name: str) -> None:
    _, teacher_logits, labels = outputs_before(seeded(LinearHead))
    train = digits().train
    assert train is not None
    taken = torch.cat((labels[:100], teacher_logits[100:].argmax(1)))
    filled = replace(digits(), train=split_of(whole(train)[0], taken))
    recipe = replace(ONCE, losses={name: 1.0}, cross_entropy=0.0)
    expected = distill(teacher(), seeded(LinearHead), filled, recipe).history[0][name]
    row = distill(teacher(), seeded(LinearHead), blind(slice(100, None)), recipe).history[0]
    assert row[name] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("cache", [False, True])
def test_a_student_learns_without_any_label(cache: bool) -> None:
    data = blind(slice(None))
    recipe = replace(LONG, cache=cache)
    trained = distill(teacher(), seeded(LinearHead), data, recipe)
    assert trained.test_accuracy > LEARNED
    assert all(row["cross_entropy"] == 0 for row in trained.history)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"losses": {}}, "images without labels teach only through a teacher and a loss to it"),
        ({"losses": {"kd": 0.0}}, "images without labels teach only through a teacher"),
        ({"mixup": 0.1}, "mixup and cutmix mix labels, which some images do not have"),
    ],
)
def test_what_needs_labels_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        distill(teacher(), seeded(LinearHead), blind(slice(9)), replace(SHORT, **changes))
    with pytest.raises(UserError, match="images without labels teach only through a teacher"):
        distill(None, seeded(LinearHead), blind(slice(9)), SHORT)


def test_kept_outputs_are_the_teachers() -> None:
    calls: list[int] = []
    master = teacher()
    master.register_forward_pre_hook(lambda module, inputs: calls.append(len(inputs[0])))
    recipe = replace(SHORT, crop=0, losses={"kd": 1.0, "dist": 1.0}, epochs=3)
    plain = distill(master, seeded(LinearHead), digits(), recipe)
    often = len(calls)
    calls.clear()
    kept = distill(master, seeded(LinearHead), digits(), replace(recipe, cache=True))
    assert sum(calls) == 330 + 2 and often > len(calls)  # and two zeros, to see that it fits
    for one, other in zip(curve(plain), curve(kept), strict=True):
        assert one == pytest.approx(other, rel=1e-4)


class Plain(nn.Module):
    """Nothing in it looks at other images of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3, 2), nn.Linear(8, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.conv(images).relu().mean((2, 3)))


def test_a_batch_in_parts_is_the_batch() -> None:
    sizes: list[int] = []
    still = replace(SHORT, crop=0)
    whole_batch = distill(teacher(), seeded(Plain), digits(), still)
    student = seeded(Plain)
    student.register_forward_pre_hook(
        lambda module, inputs: sizes.append(len(inputs[0])) if module.training else None
    )
    cut = distill(teacher(), student, digits(), replace(still, accumulate=4))
    assert set(sizes) == {8}
    for one, other in zip(curve(whole_batch), curve(cut), strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def test_losses_of_outputs_need_no_classifier_that_can_be_found() -> None:
    made = distill(teacher(), seeded(NoClassifier), digits(), SHORT)
    assert made.history[0]["kd"] > 0


def test_a_loss_read_late_stops_at_the_same_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a device that computes ahead."""
    plain = distill(None, seeded(LinearHead), digits(), SHORT)
    monkeypatch.setitem(importlib.import_module("diswot.training.loop").LAG, "cpu", 1)
    late = distill(None, seeded(LinearHead), digits(), SHORT)
    assert curve(late) == curve(plain) and states_equal(late.student, plain.student)
    with pytest.raises(FloatingPointError, match="cross_entropy not finite at step "):
        distill(None, seeded(LinearHead), digits(), replace(SHORT, lr=1e8))


@pytest.mark.slow
def test_bf16_is_fp32_to_the_noise_of_seeds() -> None:
    accuracies = {
        precision: [
            distill(
                teacher(), seeded(LinearHead, seed), digits(),
                replace(LONG, epochs=16, precision=precision, seed=seed),
            ).test_accuracy
            for seed in range(3)
        ]
        for precision in ("fp32", "bf16")
    }  # fmt: skip
    full, half = accuracies.values()
    # An accuracy of 90 % on 100 images has a standard deviation of 3, and the difference of means
    # of three has one of sqrt(2 / 3) times that. All end well above 90 %.
    noise = max(stdev(full), stdev(half), 3.0) * math.sqrt(2 / 3)
    assert abs(fmean(full) - fmean(half)) <= 4 * noise and fmean(half) > 80, accuracies


@pytest.mark.slow
def test_compiled() -> None:
    recipe = replace(SHORT, epochs=1)
    plain = distill(teacher(), seeded(LinearHead), digits(), recipe)
    built = distill(teacher(), seeded(LinearHead), digits(), replace(recipe, compile=True))
    assert built.history[0]["loss"] == pytest.approx(plain.history[0]["loss"], rel=1e-3)
