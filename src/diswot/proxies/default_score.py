"""The default score: how much a student can hold, less the gaps that keep it from learning.

default = capacity + 0.3 effective_rank + detail + 0.25 directness

`capacity` measures how much the layers can hold. `effective_rank` measures how many directions
the last map has, which is what the classifier can read. The other parts are gaps: zero where a
student lacks nothing, and negative otherwise. `detail` is negative if the first block smooths the
images more than the teacher's first block does; `directness` if even the shortest path through a
block has layers. Each part has natural units (nats, layers), so the score needs no calibration and
does not depend on which other students are scored.

The score is from no paper. Its form, the weights and the exponents were chosen on tables of
accuracies, and are the same for all spaces and teachers. docs/default.md says what it reaches on
tables that were left out of the choice; docs/score_log.md lists what was tried.

Letters: B images, C channels, H x W positions.
"""

from __future__ import annotations

import math
from statistics import fmean

from diswot.knowledge.standardised import kd_standardised
from diswot.proxies.candidate import Candidate
from diswot.proxies.eigen import eigenvalues, spectral_entropy
from diswot.proxies.layer_recorder import LayerRecorder
from diswot.proxies.paths import shortest_path
from diswot.proxies.recorders import component_square

WEIGHTS = {"capacity": 1.0, "effective_rank": 0.3, "detail": 1.0, "directness": 0.25}
EXPONENTS = (0.6, 0.2)  # of the weights and the activations, in capacity
_AGREEMENT = 2.0  # of default_inherited


def default(candidate: Candidate) -> float:
    """Return the weighted sum of the four parts; see the module.

    Raises:
        UserError: The first block of the teacher, or of the student, is not known.
    """
    parts = {
        "capacity": capacity(candidate),
        "effective_rank": effective_rank(candidate),
        "detail": detail(candidate),
        "directness": directness(candidate),
    }
    return sum(WEIGHTS[name] * part for name, part in parts.items())


def default_inherited(candidate: Candidate) -> float:
    """Return the default score less twice the distance of the predictions from the teacher's.

    The distance is that of standardised logits (`kd_standardised`), in nats. It is meant for a
    student that has inherited what fits of its trained teacher: the default score says what the
    student can hold, the distance what it still knows. The weight 2 was chosen on 24 sub-networks
    of one teacher; see docs/results.md.

    Raises:
        UserError: The first block of the teacher, or of the student, is not known, the numbers of
            classes differ, or there is no observation of the teacher.
    """
    teacher, student = candidate.observations
    return default(candidate) - _AGREEMENT * float(kd_standardised(teacher, student))


def capacity(candidate: Candidate) -> float:
    """Return log(sum over working layers of w^0.6 a^0.2).

    w is the number of weights of a layer, a the number of its activations for one image. With
    layers of equal size the sum grows with their number L and with the total weights W as
    L^0.4 W^0.6, about as the root of parameters times depth. So weights that are spread over many
    layers count more than the same weights in one. A layer that sees many positions counts somewhat
    more than one that sees few. Layers that no image reaches do not count (see `LayerRecorder`).
    """
    sizes = candidate.recorded(LayerRecorder).sizes.values()
    of_weights, of_activations = EXPONENTS
    total = math.fsum(w**of_weights * a**of_activations for w, a in sizes)
    return math.log(total) if total else -math.inf


def effective_rank(candidate: Candidate) -> float:
    """Return the logarithm of the effective rank of the last map's channels, in nats.

    It is the entropy of the shares that the principal components have of the variance; positions
    of all images are the samples. It is low if the last map has few channels, or channels that are
    alike. Roy and Vetterli, "The effective rank", EUSIPCO 2007.
    """
    return spectral_entropy(eigenvalues(component_square(candidate.observation.last)))


def detail(candidate: Candidate) -> float:
    """Return by how much the first block's map is smoother than the teacher's, negative, in nats.

    0 if it is not smoother. No later block restores what the first one smooths away. Roughness
    (`first_block.roughness`) is averaged over 16 draws of the weights.

    Raises:
        UserError: The first block of the teacher, or of the student, is not known.
    """
    teacher, student = candidate.roughness
    return 0.0 if student >= teacher else student - teacher


def directness(candidate: Candidate) -> float:
    """Return minus the mean number of layers on the shortest path through a block.

    The mean is over the first block of each shape that keeps the shape of its input. It is 0 if
    all of these have a shortcut, and if there are none. See `paths.shortest_path`.
    """
    calls = candidate.recorded(LayerRecorder).calls.values()
    return 0.0 - fmean(map(shortest_path, calls)) if calls else 0.0
