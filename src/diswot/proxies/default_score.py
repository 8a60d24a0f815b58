"""The default score: capacity, less what the student lacks to use it.

    default = capacity + detail + diversity + 0.5 retention + 2 steadiness + 0.25 directness

A student learns the better the more its layers can hold (`capacity`), if its first blocks keep as
much of the images as the teacher's do (`detail`, `diversity`), if no block narrows what passes it
(`retention`), and if gradients pass its blocks as evenly as those of a residual network
(`steadiness`) and on a short way (`directness`). All but the first are gaps: zero where nothing is
lacking, and below zero otherwise, so they cannot make up for capacity, and say nothing among
students that all lack nothing. Each is in natural units (nats, layers), so that the score needs no
calibration: it does not depend on which other students are looked at. It is ours, of no paper.

The form, the weights and the tolerances 1/8 and 1/16 were chosen on halves of four tables of
accuracies, and are the same for all spaces and teachers; docs/score_log.md tells what was tried.

Letters: B batch, C channels, H x W positions, D features that enter the classifier.
"""

from __future__ import annotations

import math
from itertools import groupby, pairwise
from statistics import fmean

import torch
from torch.nn.functional import cross_entropy

from diswot.errors import UserError
from diswot.observation.observe import measuring
from diswot.proxies import passes
from diswot.proxies.blocks import map_of
from diswot.proxies.candidate import Candidate
from diswot.proxies.early_blocks import Opening
from diswot.proxies.layers import Anatomy
from diswot.proxies.paths import shortest_path
from diswot.proxies.recorders import Entropies

WEIGHTS = {
    "capacity": 1.0,
    "detail": 1.0,
    "diversity": 1.0,
    "retention": 0.5,
    "steadiness": 2.0,
    "directness": 0.25,
}
_TOLERANCE = 0.125  # nats a block
_LOST = 0.0625  # nats that any block may lose
_IMAGES = 16


def default(candidate: Candidate) -> float:
    """What a student can hold, less what it lacks to use it; see the module."""
    parts = {
        "capacity": capacity(candidate),
        "detail": detail(candidate),
        "diversity": diversity(candidate),
        "retention": retention(candidate),
        "steadiness": steadiness(candidate),
        "directness": directness(candidate),
    }
    return sum(WEIGHTS[name] * part for name, part in parts.items())


def capacity(candidate: Candidate) -> float:
    """log(sum over working layers of C log2(1 + k / sqrt(groups)) / sqrt(D)).

    C is the width of the layer's block, k the side of its kernel. Parameters grow with the square
    of width and of k; accuracy does not, so that here a layer more counts as much wherever it
    stands in a stage, and a 3 x 3 kernel as two 1 x 1. A hidden width inside a block, as of an MLP,
    is not counted: a block passes on no more than it gives. Dividing by sqrt(D) makes depth count
    more than width where all of a network is widened. Layers that no image reaches hold nothing
    (see `Anatomy`).
    """
    size = candidate.watched(Anatomy).size
    features = candidate.observation.pooled.shape[1]
    return math.log(size / math.sqrt(features)) if size else -math.inf


def detail(candidate: Candidate) -> float:
    """How much less rough the first block's map is than the teacher's, in nats; 0 if it is not.

    What the first block smooths away, no later one brings back. See `opening.roughness`. Like
    diversity, it is compared in the mean over 8 draws of the weights of the first blocks.

    Raises:
        UserError: The teacher's first block, or the student's, is not known.
    """
    teacher, student = _openings(candidate)
    return _gap(student.roughness, teacher.roughness)


def diversity(candidate: Candidate) -> float:
    """How much lower the entropy of the channels' correlations is than the teacher's, in nats.

    The gap from the teacher's first block to the student's last at the first resolution, or its
    fifth, 0 if there is none. Channels that say the same show less of an image, and blocks may
    keep them so.

    Raises:
        UserError: The teacher's first block, or the student's, is not known.
    """
    teacher, student = _openings(candidate)
    return _gap(student.last_entropy, teacher.entropy)


def retention(candidate: Candidate) -> float:
    """Minus the most entropy that a block loses of noise, beyond 1/16 nat.

    The entropy is that of the principal components of a block's map, as in AZ-NAS, whose
    progressivity is the smallest gain of all; the loss is to a next block of the same width. White
    noise, 16 images, has all that a block could lose; photographs have so little variety that it
    grows with depth whatever is lost. Residual blocks lose up to 0.04, which is tolerated.
    """
    model, images = candidate.student, candidate.batch.images
    shape = (_IMAGES, *images.shape[1:])
    noise = torch.randn(shape, generator=candidate.generator()).to(images)
    with torch.no_grad(), measuring(model), Entropies(model, noise) as seen:
        model(noise)
    blocks = pairwise(zip(seen.widths, seen.values, strict=True))
    losses = [before - after for (one, before), (next_, after) in blocks if one == next_]
    if not all(map(math.isfinite, losses)):
        return math.nan
    return min(0.0, _LOST - max(losses, default=0.0))


def steadiness(candidate: Candidate) -> float:
    """Minus how much more gradients change from block to block than in a residual network.

    g_i is the norm of the cross-entropy's gradient in the map of block i, on the first 16 images.
    In a stage of residual blocks whose branches are alike, the stream's variance after block i is i
    times a branch's, so |log g_i - log g_(i+1)| is about log((i + 1) / i) / 2. What exceeds that,
    in the mean over all blocks that follow one of the same shape, and exceeds 1/8, is the gap. In
    networks without shortcuts the change is the same at every block, and multiplies.
    """
    model, batch = candidate.student, candidate.batch
    images, labels = batch.images[:_IMAGES], batch.labels[:_IMAGES]
    with passes.differentiating(model):
        leaf = images.detach().requires_grad_()
        logits, outputs = passes.block_outputs(model, leaf)
        reached = [output for output in outputs if output.requires_grad]
        slopes = passes.gradients(cross_entropy(logits.float(), labels), reached)
    maps = [features for slope in slopes if (features := map_of(slope, images)) is not None]
    norms = [(tuple(m.shape), float(m.double().norm())) for m in maps]
    if not all(math.isfinite(norm) for _, norm in norms):
        return math.nan
    excess = [
        max(0.0, abs(math.log(before / after)) - math.log((place + 1) / place) / 2)
        for _, stage in groupby((n for n in norms if n[1] > 0), key=lambda n: n[0])
        for place, ((_, before), (_, after)) in enumerate(pairwise(stage), 1)
    ]
    return min(0.0, _TOLERANCE - fmean(excess)) if excess else 0.0


def directness(candidate: Candidate) -> float:
    """Minus the mean number of layers that even the shortest path through a block has.

    Of the first block of each shape that keeps the shape of its input; 0 where all of these have a
    shortcut, and where there are none. See `paths.shortest_path`.
    """
    calls = candidate.watched(Anatomy).calls.values()
    return 0.0 - fmean(map(shortest_path, calls)) if calls else 0.0


def _gap(student: float, teacher: float) -> float:
    """What the student lacks, not a number where one of the two is none."""
    return 0.0 if student >= teacher else student - teacher


def _openings(candidate: Candidate) -> tuple[Opening, Opening]:
    if candidate.teacher_opening is None:
        raise UserError("needs what the first block of the teacher shows: give the teacher itself")
    if candidate.opening is None:
        raise UserError("no block of the student gives a map of the images")
    return candidate.teacher_opening, candidate.opening
