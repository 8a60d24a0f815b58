from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from knowledge.made import THREE, made
from safetensors.torch import load_file
from torch import Tensor, nn

from diswot.data.dataset import Dataset, Split
from diswot.errors import UserError
from diswot.knowledge.losses import Loss, Losses, SharedClasses, outputs
from diswot.knowledge.registry import KNOWLEDGE, get_distance
from diswot.models.initialization import fresh
from diswot.observation.observe import Observation
from diswot.spaces.cifar_resnet import CifarResNet
from diswot.training.distill import distill
from diswot.training.recipe import Recipe

CLASSES, PIXELS = 4, 8
FREE = [name for name, row in KNOWLEDGE.items() if not row.same_width]
NARROW = ((2, 4, 4), (4, 3, 2), (5, 2, 2))


def images() -> Dataset:
    generator = torch.Generator().manual_seed(0)
    bytes_ = torch.randint(0, 256, (48, 3, PIXELS, PIXELS), generator=generator).to(torch.uint8)
    labels = torch.arange(48) % CLASSES
    splits = [
        Split(labels[part], lambda i, part=part: bytes_[part][torch.as_tensor(i)])
        for part in (slice(0, 32), slice(32, 48))
    ]
    names = tuple(str(i) for i in range(CLASSES))
    return Dataset("made", names, PIXELS, (0.5,) * 3, (0.25,) * 3, *splits)


def resnet(*widths: int) -> nn.Module:
    return fresh(lambda: CifarResNet((1, 1, 1), CLASSES, widths), "default", 0)


def test_weights_and_names() -> None:
    both = made(0), made(1, NARROW)
    losses = Losses({"kd": 0.5, "at": 3.0}, *both)
    parts = losses(*both)
    assert list(parts) == ["kd", "at"]
    assert float(parts["kd"]) == pytest.approx(0.5 * float(get_distance("kd").between(*both)))
    assert float(parts["at"]) == pytest.approx(3 * float(get_distance("at").between(*both)))
    assert not list(losses.parameters())


@pytest.mark.parametrize("name", ["values", "type", "train"])
def test_a_function_may_have_the_name_of_a_method(name: str) -> None:
    both = made(0), made(1)
    mine = own(name)
    assert list(Losses({mine: 1.0}, *both)(*both)) == [name]


def test_two_functions_of_one_name_are_refused() -> None:
    two = {own("mine"): 1.0, own("mine"): 2.0}
    with pytest.raises(UserError, match="two losses have one name"):
        Losses(two, made(0), made(1))
    with pytest.raises(UserError, match="two losses have one name"):
        Recipe(losses=two)


def own(name: str) -> Callable[[Observation, Observation], Tensor]:
    def distance(teacher: Observation, student: Observation) -> Tensor:
        return (student.logits - teacher.logits).square().mean()

    distance.__name__ = name
    return distance


def test_distances_are_in_float32_under_autocast() -> None:
    both = made(0), made(1)
    losses = Losses(dict.fromkeys(("sp", "rkd", "ickd"), 1.0), *both)
    expected = losses(*both)
    with torch.autocast("cpu", torch.bfloat16):
        found = losses(*both)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_the_maps_of_classes_are_needed_only_by_gradcam() -> None:
    both = made(0), made(1)
    assert not Losses({"kd": 1.0}, *both).needs_cam
    assert Losses({"kd": 1.0, "gradcam": 1.0}, *both).needs_cam


def test_what_is_learned_comes_back_from_its_state() -> None:
    both = made(0), made(1, NARROW)
    first, second = (Losses({"vid": 1.0, "fsp": 1.0}, *both) for _ in range(2))
    optimiser = torch.optim.SGD(first.parameters(), 0.1)
    sum(first(*both).values()).backward()
    optimiser.step()
    expected = {name: float(part.detach()) for name, part in first(*both).items()}
    assert expected != {name: float(part.detach()) for name, part in second(*both).items()}
    second.load_state_dict(first.state_dict())
    assert expected == {name: float(part.detach()) for name, part in second(*both).items()}


@pytest.mark.parametrize("name", ["fitnet", "ab", "vid", "fsp", "ickd", "kdsvd"])
def test_all_that_is_learned_gets_a_slope(name: str) -> None:
    both = made(0, THREE), made(1, NARROW)
    loss = Loss(get_distance(name), *both)
    loss(*both).backward()
    assert list(loss.parameters())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in loss.parameters())
    assert any(p.grad.any() for p in loss.parameters())


def test_all_at_once_in_training_stopped_and_resumed(tmp_path: Path) -> None:
    recipe = Recipe(epochs=2, batch_size=16, lr=0.01, losses=dict.fromkeys(FREE, 0.05))
    data, teacher = images(), resnet(16, 24, 32)

    def train(out: Path, *, stop: int = 100, resume: bool = False) -> object:
        def on_step(step: int, steps: int, row: object) -> None:
            if step == stop:
                raise KeyboardInterrupt

        student = resnet(8, 12, 16)
        return distill(teacher, student, data, recipe, out=out, resume=resume, on_step=on_step)

    straight = train(tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "stopped", stop=3)
    resumed = train(tmp_path / "stopped", resume=True)
    for one, other in zip(straight.history, resumed.history, strict=True):
        times = dict.fromkeys(("seconds", "images_per_second"), 0)
        assert {**one, **times} == {**other, **times}
    assert set(FREE) <= set(straight.history[0])
    kept = load_file(tmp_path / "stopped" / "student.safetensors")
    assert set(kept) == set(resnet(8, 12, 16).state_dict())
    weights = straight.student.state_dict()
    assert all(torch.equal(kept[name], weights[name].cpu()) for name in kept)


def test_all_at_once_in_half_precision() -> None:
    recipe = Recipe(
        epochs=1, batch_size=16, lr=0.01, losses=dict.fromkeys(FREE, 0.05), precision="bf16"
    )
    (row,) = distill(resnet(16, 24, 32), resnet(8, 12, 16), images(), recipe).history
    assert set(FREE) <= set(row)


class TestSharedClasses:
    """A teacher of three outputs; of the student's five classes it has the last and the second."""

    CLASSES = (4, -1, 1)

    def pair(self) -> tuple[Observation, Observation]:
        teacher, student = made(0, classes=3), made(1, NARROW, size=4)
        return teacher, replace(student, targets=torch.tensor([1, 0, 4, 4]))

    def test_outputs_are_compared_over_the_shared_classes(self) -> None:
        teacher, student = self.pair()
        found = Losses({"kd": 2.0}, teacher, student, classes=self.CLASSES)(teacher, student)
        target = (teacher.logits[:, [0, 2]] / 4).softmax(1)
        output = (student.logits[:, [4, 1]] / 4).softmax(1)
        by_hand = 16 * (target * (target / output).log()).sum(1).mean()
        assert float(found["kd"]) == pytest.approx(2 * float(by_hand), rel=1e-5)

    def test_labels_are_translated_and_rows_without_one_left_out(self) -> None:
        teacher, student = self.pair()
        found = Losses({"dkd": 1.0}, teacher, student, classes=self.CLASSES)(teacher, student)
        rows, labels = [0, 2, 3], torch.tensor([1, 0, 0])
        shared = [
            outputs(seen.logits[rows][:, columns], labels)
            for seen, columns in ((teacher, [0, 2]), (student, [4, 1]))
        ]
        assert torch.equal(found["dkd"], get_distance("dkd").between(*shared))
        alone = replace(student, targets=torch.zeros(4, dtype=torch.int64))
        losses = Losses({"dkd": 1.0}, teacher, student, classes=self.CLASSES)
        assert float(losses(teacher, alone)["dkd"]) == 0

    def test_maps_are_compared_as_they_are(self) -> None:
        teacher, student = self.pair()
        for classes in (self.CLASSES, (-1, -1, -1)):
            found = Losses({"at": 1.0}, teacher, student, classes=classes)(teacher, student)
            assert torch.equal(found["at"], get_distance("at").between(teacher, student))

    @pytest.mark.parametrize("loss", ["semantic", "semantic_class", "gradcam"])
    def test_class_gradients_need_all_classes(self, loss: str) -> None:
        with pytest.raises(UserError, match=f"{loss} needs a teacher with all classes"):
            Losses({loss: 1.0}, *self.pair(), classes=self.CLASSES)

    @pytest.mark.parametrize("classes", [(-1, -1, -1), (2, -1, -1)])
    def test_outputs_need_two_shared_classes(self, classes: tuple[int, ...]) -> None:
        with pytest.raises(UserError, match="such as at or sp, need none"):
            Losses({"kd": 1.0}, *self.pair(), classes=classes)

    def test_answers_of_the_teacher(self) -> None:
        logits = torch.tensor([[0.0, 9, 1], [2.0, 0, 1]])
        assert SharedClasses(self.CLASSES).answers(logits).tolist() == [1, 4]
        assert SharedClasses((-1, -1, -1)).answers(logits).tolist() == [-1, -1]
