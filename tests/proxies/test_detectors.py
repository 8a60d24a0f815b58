"""Every score on detectors: it works, or says in one line why not."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from detectors import ALL, CLASSES, ONE_STAGE, Other, batch, fcos, retinanet, ssd
from torch import Tensor, nn

from diswot.data.dataset import Batch
from diswot.errors import UserError
from diswot.models.initialization import fresh
from diswot.observation.boxes import box_dicts
from diswot.observation.detectors import ImagesAlone
from diswot.observation.losses import mean_loss, summed_loss
from diswot.observation.modes import measuring
from diswot.proxies import activations, az_nas, gradients, ntk_fisher
from diswot.proxies.blocks import weights
from diswot.proxies.candidate import Candidate
from diswot.proxies.default_score import capacity, effective_rank
from diswot.proxies.first_block import first_block_roughness
from diswot.proxies.layer_recorder import LayerRecorder
from diswot.proxies.recorders import component_square
from diswot.proxies.registry import PROXIES
from diswot.proxies.scorer import NotScored, Outcome, scorer
from diswot.proxies.synflow import synflow

ONE_LABEL = {"gradcam", "vkdnw", "epe_nas"}
OF_OUTPUTS = {"kd", "dkd", "dist", "wttm", "mlkd", "agreement", "agreement_top1"}
OF_OUTPUTS |= {"kd_standardised", "dkd_standardised", "dist_standardised", "default_inherited"}
UNFIT = {
    "fcos": ONE_LABEL,
    "retinanet": ONE_LABEL,
    "ssd": ONE_LABEL | {"semantic", "diswot"},
    "faster_rcnn": ONE_LABEL | OF_OUTPUTS | {"rkd", "pkt", "cc", "grasp"},
}

every_kind = pytest.mark.parametrize("kind", ALL)
one_stage = pytest.mark.parametrize("kind", ONE_STAGE)


def made(build: Callable[..., nn.Module], width: int = 4) -> Any:
    return fresh(lambda: build(width), "kaiming", width)


def candidate(model: nn.Module, images: int = 4) -> Candidate:
    return Candidate(model, None, Batch(*batch(images)))


@cache
def outcomes(kind: str) -> dict[str, list[Outcome]]:
    fixed = scorer(
        made(ALL[kind], 6), [Batch(*batch(4))], list(PROXIES), init="kaiming", num_classes=CLASSES
    )
    return fixed.outcomes(fixed.students(lambda: ALL[kind](4)), list(PROXIES))


@every_kind
@pytest.mark.parametrize("name", PROXIES)
def test_a_score_is_finite_or_does_not_fit(kind: str, name: str) -> None:
    (found,) = outcomes(kind)[name]
    if name in UNFIT[kind]:
        assert isinstance(found, NotScored) and found.misfit
        assert found.reason and "\n" not in found.reason
    else:
        assert not isinstance(found, NotScored) and math.isfinite(found)


@one_stage
def test_the_loss_is_that_of_a_training(kind: str) -> None:
    model, (images, targets) = made(ALL[kind]), batch(4)
    losses = model.train()(list(images), box_dicts(targets))
    by_name = weights(model)
    slopes = torch.autograd.grad(sum(losses.values()), list(by_name.values()), allow_unused=True)
    found = candidate(model).weight_gradients
    for name, slope in zip(by_name, slopes, strict=True):
        expected = torch.zeros_like(by_name[name]) if slope is None else slope
        torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-6)
    snip = sum(
        float((w.detach() * s).abs().sum())
        for w, s in zip(by_name.values(), slopes, strict=True)
        if s is not None
    )
    assert gradients.snip(candidate(model)) == pytest.approx(snip, rel=1e-4)


def test_the_summed_loss_is_the_mean_times_the_images() -> None:
    model, (images, targets) = made(fcos), batch(4)
    with measuring(model):
        mean, total = (f(model, images, targets) for f in (mean_loss, summed_loss))
    assert float(total.detach()) == pytest.approx(4 * float(mean.detach()), rel=1e-5)


class Plain(nn.Module):
    """The class logits of a one-stage detector as those of a classifier."""

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> Tensor:
        levels = list(self.detector.backbone(images).values())
        logits: Tensor = self.detector.head(levels)["cls_logits"].flatten(1)
        return logits


@pytest.mark.parametrize(
    "score",
    [synflow, ntk_fisher.ntk_cond, activations.jacov, az_nas.trainability],
    ids=lambda score: score.__name__,
)
def test_without_boxes_a_detector_is_a_network_of_its_class_logits(
    score: Callable[[Candidate], float],
) -> None:
    for build in (fcos, ssd):
        model = made(build)
        plain = Candidate(Plain(model), None, Batch(batch(4)[0], torch.zeros(4, dtype=torch.int64)))
        assert score(candidate(model)) == pytest.approx(score(plain), rel=1e-6)


def test_without_boxes_a_detector_of_two_stages_gives_its_objectness() -> None:
    model, images = made(ALL["faster_rcnn"]), batch()[0]
    found = ImagesAlone(model)(images)
    objectness, _ = model.rpn.head(list(model.backbone(images).values()))
    assert torch.equal(found, torch.cat([each.flatten(1) for each in objectness], 1))


def test_without_a_head_a_detector_gives_its_levels() -> None:
    model, images = made(Other), batch()[0]
    levels = model.backbone(images).values()
    assert torch.equal(ImagesAlone(model)(images), torch.cat([m.flatten(1) for m in levels], 1))


def test_without_a_backbone_a_detector_gives_the_scores_of_its_boxes() -> None:
    class Scores(nn.Module):
        def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
            return [{"scores": image[0, :number]} for number, image in enumerate(images, 1)]

    images = batch()[0]
    expected = torch.stack([images[0, 0, :1].sum(), images[1, 0, :2].sum()])
    assert torch.equal(ImagesAlone(Scores())(images), expected)


def test_images_are_those_that_enter_the_backbone() -> None:
    model = made(lambda width: fcos(width, min_size=32, max_size=48, image_mean=(1.0,) * 3))
    found = candidate(model)
    assert found.images.shape == (4, 3, 32, 64)  # 32 x 48, padded
    assert not found.images[..., 48:].any()
    mean = nn.functional.interpolate(found.batch.images, (32, 48), mode="bilinear").mean()
    assert float(found.images[..., :48].mean()) == pytest.approx(float(mean) - 1, abs=1e-4)
    seen: list[torch.Size] = []
    model.backbone.register_forward_hook(lambda module, inputs, _: seen.append(inputs[0].shape))
    assert math.isfinite(capacity(found)) and seen == [found.images.shape]


def test_images_of_a_detector_in_training_are_drawn_from_nothing() -> None:
    model = made(lambda width: fcos(width, min_size=(16, 32), max_size=48)).train()
    before = torch.get_rng_state()
    for _ in range(4):
        assert candidate(model).images.shape == (4, 3, 32, 64)
    assert torch.equal(torch.get_rng_state(), before) and model.transform.training


def test_the_first_block_is_that_of_the_backbone() -> None:
    teacher, student = made(fcos, 6), made(fcos, 4)
    images, targets = batch(4)
    expected = [
        first_block_roughness(model.backbone.body, images, 5) for model in (teacher, student)
    ]
    rough = first_block_roughness(ImagesAlone(teacher), images, 5)
    found = Candidate(student, None, Batch(images, targets), 5, teacher_roughness=rough)
    assert list(found.roughness) == pytest.approx(expected)


def test_layers_of_a_head_count_once_with_the_largest_level() -> None:
    model = made(retinanet)
    recorder = candidate(model).recorded(LayerRecorder)
    head = model.head.classification_head
    assert recorder.sizes[head.cls_logits.weight] == (32 * 9 * 8, 8 * 16 * 24)  # two anchors
    counted = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert set(recorder.sizes) == {m.weight for m in counted}


def test_the_last_map_is_of_the_body() -> None:
    model, (images, _) = made(fcos), batch(4)
    with measuring(model), torch.no_grad():
        last = model.backbone.body(images)["3"]
    values = torch.linalg.eigvalsh(component_square(last).double()).clamp_min(0)
    shares = values / values.sum()
    expected = -float(torch.xlogy(shares, shares).sum())
    assert effective_rank(candidate(model)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["params", "diswot"])
def test_another_number_of_classes_is_one_line(name: str) -> None:
    fixed = scorer(made(fcos, 6), [Batch(*batch(4))], [name], num_classes=CLASSES + 2)
    with pytest.raises(UserError, match=r"outputs for 4 classes, the background included, .* 6"):
        fixed.outcomes(fixed.students(lambda: fcos(4)), [name])


def test_chance_has_no_part_in_what_proposals_are_sampled() -> None:
    model = made(ALL["faster_rcnn"])
    torch.manual_seed(1)
    first = gradients.grad_norm(candidate(model))
    torch.manual_seed(2)
    assert gradients.grad_norm(candidate(model)) == first
