"""Checks of the losses: do soft labels say something, and are the parts of one scale?

Letters: N images, K classes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from diswot.data.loader import StreamedImages
from diswot.errors import UserError
from diswot.knowledge.losses import Losses, outputs
from diswot.knowledge.registry import get_distance
from diswot.knowledge.standardised import dist_standardised, dkd_standardised, kd_standardised
from diswot.knowledge.standardised import standardised as z_scores
from diswot.observation.modes import sliced_shortcuts
from diswot.training.batches import Batches
from diswot.training.distributed import Processes
from diswot.training.finding import Finding
from diswot.training.objective import Objective, create_losses
from diswot.training.recipe import Recipe
from diswot.training.trainable import Distillation
from diswot.utils import user_code

FLAT, SHARP = 0.995, 0.02  # entropy of softened outputs over that of equal ones
MIDDLE = 0.7  # entropy that a remedy aims at
TEMPERATURES = tuple(2.0**power for power in range(-4, 6))
LOUD, FAINT = 100.0, 0.01  # gradient of a loss over that of the cross-entropy

OWN = "loss of the labels"

_STANDARDISED = (kd_standardised, dkd_standardised, dist_standardised)


def check_temperature(recipe: Recipe, logits: Tensor) -> list[Finding]:
    """Measure how much of the teacher's logits, N x K, is left when they are softened."""
    findings = []
    for name in recipe.losses:
        row = get_distance(name)
        if "temperature" not in row.defaults or not row.outputs_alone:
            continue
        warmth = recipe.temperature or float(str(row.defaults["temperature"]))
        scores = logits
        if row.distance in _STANDARDISED:
            seen = outputs(logits, torch.zeros(len(logits), dtype=torch.int64))
            scores = z_scores(user_code.name_of(name), seen, seen)[0].logits
        findings.append(_temperature(user_code.name_of(name), warmth, scores))
    return findings


def _temperature(loss: str, warmth: float, logits: Tensor) -> Finding:
    left = entropy(logits / warmth)
    text = f"{loss}: at T = {warmth:g} the teacher's outputs have {left:.1%} of the highest entropy"
    better = min(TEMPERATURES, key=lambda t: abs(entropy(logits / t) - MIDDLE))
    if left > FLAT:
        text += ", so that all classes look alike"
        return Finding(
            "temperature", "warning", text, f"a lower one, such as --temperature {better:g}"
        )
    if left < SHARP:
        text += ", so that they say no more than labels"
        return Finding(
            "temperature", "warning", text, f"a higher one, such as --temperature {better:g}"
        )
    return Finding("temperature", "good", text)


def entropy(logits: Tensor) -> float:
    """Return the mean entropy of outputs over that of equal ones: 1 where they are equal."""
    logs = logits.double().log_softmax(1)
    return float(-(logs.exp() * logs).sum(1).mean()) / math.log(logits.shape[1])


def check_losses(given: Distillation, processes: Processes) -> list[Finding]:
    """Compute the losses of the first batch and their gradients; say what adapters learn."""
    try:
        losses = create_losses(given, processes.device)
        if losses is not None:
            return [_adapters(losses), *_scales(given, losses, processes)]
    except UserError as error:
        remedy = "choose other losses (diswot list losses), such as at, sp or semantic_class"
        return [Finding("adapters", "wrong", str(error), remedy)]
    text = "the recipe has no loss to the teacher"
    return [Finding("loss scale", "warning", text, "name some: --losses kd")]


def _adapters(losses: Losses) -> Finding:
    """Say which losses learn something beside the student."""
    rows = zip(losses.facts, losses.rows, strict=True)
    sizes = {name: sum(p.numel() for p in row.parameters()) for name, row in rows}
    learned = [f"{name} learns {size:,} parameters" for name, size in sizes.items() if size]
    text = ", ".join(learned) or "none is learned"
    return Finding("adapters", "good", text)


def _scales(given: Distillation, losses: Losses, processes: Processes) -> list[Finding]:
    values, slopes = _first_step(given, losses, processes)
    if broken := [name for name, value in values.items() if not math.isfinite(value)]:
        text = f"{' and '.join(broken)} not finite at the first step"
        remedy = "check the weights of both networks and the normalisation of the images"
        return [Finding("loss scale", "wrong", text, remedy)]
    weights = given.recipe.weights.items()
    return [_scale(name, weight, values, slopes) for name, weight in weights if weight]


def _scale(
    name: str, weight: float, values: Mapping[str, float], slopes: Mapping[str, float]
) -> Finding:
    base = slopes[OWN]
    text = f"{weight:g} {name} is {values[name]:.3g} at the first step"
    if not base:
        return Finding("loss scale", "good", f"{text}; the labels have no weight")
    ratio = slopes[name] / base
    text += f", and its gradient {ratio:.2g} times that of the loss of the labels"
    if FAINT <= ratio <= LOUD:
        return Finding("loss scale", "good", text)
    if not ratio:
        return Finding(
            "loss scale", "wrong", text, f"leave {name} out: it does not move this student"
        )
    return Finding(
        "loss scale", "warning", text, f"for equal gradients: --losses {name}:{weight / ratio:.3g}"
    )


def _first_step(
    given: Distillation, losses: Losses, processes: Processes
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the losses of the first part of a batch, and the norms of their gradients.

    The cross-entropy, or the sum of a detector's losses, is named `OWN` and has the weight 1.
    """
    data, recipe = given.data, given.recipe
    assert data.train is not None
    batches = Batches(data, recipe, processes)
    trained = copy.deepcopy(given.student).train().requires_grad_()
    part = next(batches.epoch(StreamedImages(data.train, processes.device), recipe.seed))[0]
    objective = Objective(replace(given, student=trained), losses, processes)
    with sliced_shortcuts(trained):
        parts, _ = objective(part)
    own = torch.stack([value for name, value in parts.items() if name not in losses.weights]).sum()
    parts = {
        OWN: own / (recipe.cross_entropy or 1),
        **{name: parts[name] for name in losses.weights},
    }
    slopes = {name: _slope(value, trained) for name, value in parts.items()}
    return {name: float(value.detach()) for name, value in parts.items()}, slopes


def _slope(value: Tensor, model: nn.Module) -> float:
    """Return the norm of the gradient of a loss in the weights of a network."""
    weights = list(model.parameters())
    found = torch.autograd.grad(value, weights, retain_graph=True, allow_unused=True)
    squares = [each.square().sum() for each in found if each is not None]
    return float(torch.stack(squares).sum().sqrt()) if squares else 0.0
