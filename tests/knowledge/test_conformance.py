"""Every row on real networks: at initialisation, and as a loss for a step of training."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import cache

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from toys import batch

from diswot.errors import UserError
from diswot.knowledge.losses import Losses
from diswot.knowledge.registry import KNOWLEDGE, get_distance
from diswot.models.initialization import TEACHER, fresh
from diswot.models.registry import create_teacher
from diswot.observation.observe import Observation, observe, record
from diswot.spaces.nasbench201 import from_string
from diswot.spaces.registry import build_network as network
from diswot.spaces.registry import create_space as space

CLASSES = 10
CELL = "|nor_conv_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|avg_pool_3x3~0|none~1|nor_conv_3x3~2|"
VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 2}


def s0(*blocks: int) -> nn.Module:
    return network(space("s0", CLASSES), {f"blocks{i + 1}": n for i, n in enumerate(blocks)})


# At 64 pixels the last map of MobileNet has four cells; at 32 it has one.
STUDENTS: dict[str, tuple[int, Callable[[], nn.Module]]] = {
    "s0-1-1-1": (32, lambda: s0(1, 1, 1)),
    "s0-3-1-5": (32, lambda: s0(3, 1, 5)),
    "nasbench201": (32, lambda: network(space("nasbench201", CLASSES), from_string(CELL))),
    "mobilenet_v3_small": (
        64,
        lambda: torchvision.models.mobilenet_v3_small(num_classes=CLASSES),
    ),
    "vit": (
        32,
        lambda: timm.models.VisionTransformer(num_classes=CLASSES, global_pool="avg", **VIT),
    ),
}
OTHER_WIDTH = {"mobilenet_v3_small"}  # than the teacher's 64

cases = pytest.mark.parametrize("student", STUDENTS)
rows = pytest.mark.parametrize("name", KNOWLEDGE)


@cache
def teacher() -> nn.Module:
    return fresh(lambda: create_teacher("resnet56", CLASSES), "kaiming", 0, 0, TEACHER).eval()


@cache
def model(student: str) -> nn.Module:
    return fresh(STUDENTS[student][1], "kaiming", 0)


@cache
def seen(who: str, pixels: int) -> Observation:
    network = teacher() if who == "teacher" else model(who)
    return observe(network, *batch(6, pixels, CLASSES), cam=True)


@cases
def test_as_proxies(student: str) -> None:
    pixels, build = STUDENTS[student]
    teacher_seen, student_seen = seen("teacher", pixels), seen(student, pixels)
    again = observe(fresh(build, "kaiming", 0), *batch(6, pixels, CLASSES), cam=True)
    for name, row in KNOWLEDGE.items():
        if row.same_width and student in OTHER_WIDTH:
            with pytest.raises(UserError, match=r"teacher \(10, 64\), student \(10, 1024\)"):
                row.between(teacher_seen, student_seen)
            continue
        distance = float(row.between(teacher_seen, student_seen))
        assert math.isfinite(distance) and distance > 1e-6, name
        assert float(row.between(teacher_seen, again)) == distance, name


@pytest.mark.parametrize("student", ["s0-3-1-5", "mobilenet_v3_small", "vit"])
@rows
def test_a_step_of_training_lessens_the_loss(name: str, student: str) -> None:
    pixels, _ = STUDENTS[student]
    if get_distance(name).same_width and student in OTHER_WIDTH:
        return
    images, labels = batch(6, pixels, CLASSES)
    losses, network, ours = loss_of(name, student)
    trained = nn.ModuleList([network, losses])
    before = copy.deepcopy(trained.state_dict())
    loss = look(losses, network, ours, images, labels)[name]
    loss.backward()
    slopes = {n: p.grad for n, p in trained.named_parameters() if p.grad is not None}
    assert all(slope.isfinite().all() for slope in slopes.values())
    assert any(key.startswith("0.") and slope.any() for key, slope in slopes.items())
    steep = sum(float(slope.square().sum()) for slope in slopes.values())
    for share in (0.1, 0.01, 0.001):  # of the loss, were it straight
        trained.load_state_dict(before)
        with torch.no_grad():
            for parameter in trained.parameters():
                if parameter.grad is not None:
                    parameter -= share * float(loss.detach()) / steep * parameter.grad
        again = look(losses, network, ours, images, labels)[name]
        if float(again.detach()) < float(loss.detach()):
            return
    pytest.fail(f"no step lessens {name}")


def look(
    losses: Losses, network: nn.Module, ours: Observation, images: Tensor, labels: Tensor
) -> dict[str, Tensor]:
    """The losses of a step, always with the same dropout."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return losses(ours, record(network, images, labels, cam=losses.needs_cam))


def loss_of(name: str, student: str) -> tuple[Losses, nn.Module, Observation]:
    """The loss, a student to train, and what the teacher shows in evaluation mode."""
    pixels, _ = STUDENTS[student]
    losses = Losses({name: 1.0}, seen("teacher", pixels), seen(student, pixels))
    with torch.no_grad():
        images, labels = batch(6, pixels, CLASSES)
        ours = record(frozen_teacher(), images, labels, cam=losses.needs_cam)
    return losses, copy.deepcopy(model(student)).train(), ours


@cache
def frozen_teacher() -> nn.Module:
    """Running statistics of one batch, without which activations grow from block to block."""
    network = copy.deepcopy(teacher()).requires_grad_(False)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None
    network.train()(batch(32, 32, CLASSES)[0])
    return network.eval()


def test_losses_start_where_the_proxies_are() -> None:
    student = "mobilenet_v3_small"
    pixels, _ = STUDENTS[student]
    both = seen("teacher", pixels), seen(student, pixels)
    fit = [n for n, r in KNOWLEDGE.items() if not (r.same_width and student in OTHER_WIDTH)]
    fit.remove("mgd")  # its loss has a generator with random weights, and its proxy none
    with torch.no_grad():
        losses = Losses(dict.fromkeys(fit, 2.0), *both)
        for name, loss in losses(*both).items():
            expected = 2 * float(get_distance(name).between(*both))
            assert float(loss) == pytest.approx(expected, rel=1e-4, abs=1e-5), name


def test_what_is_learned() -> None:
    """1x1 convolutions, with bias, where widths differ, or always where papers regress."""
    learned = {}
    for student in ("s0-1-1-1", "mobilenet_v3_small"):
        both = seen("teacher", STUDENTS[student][0]), seen(student, STUDENTS[student][0])
        fit = [n for n, r in KNOWLEDGE.items() if not (r.same_width and student in OTHER_WIDTH)]
        losses = Losses(dict.fromkeys(fit, 1.0), *both)
        for name, loss in zip(losses.weights, losses.rows, strict=True):
            learned[student, name] = sum(p.numel() for p in loss.parameters())
    square, wide = 16 * 17 + 32 * 33 + 64 * 65, 16 * 17 + 32 * 25 + 64 * 577
    always = {"fitnet": 32 * 33, "ab": square, "vid": square + 16 + 32 + 64}
    differ = {"fitnet": 32 * 25, "ab": wide, "vid": wide + 16 + 32 + 64}
    differ |= dict.fromkeys(("fsp", "kdsvd", "cwd", "pkd"), wide - 16 * 17) | {"ickd": 64 * 577}
    masked = sum(2 * (9 * width**2 + width) for width in (16, 32, 64))  # two 3x3 convolutions
    always, differ = always | {"mgd": masked}, differ | {"mgd": masked + wide - 16 * 17}
    for name in KNOWLEDGE:
        assert learned["s0-1-1-1", name] == always.get(name, 0)
        if not get_distance(name).same_width:
            assert learned["mobilenet_v3_small", name] == differ.get(name, 0)
