"""Scores from how well a network at initialisation separates images, or disturbed images.

Letters: B images, C channels, H x W positions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from diswot.errors import UserError
from diswot.observation.observe import observe
from diswot.proxies.activation_codes import ActivationCodes
from diswot.proxies.candidate import Candidate
from diswot.proxies.eigen import eigenvalues
from diswot.proxies.recorders import Recorder
from diswot.utils.compat import BatchNorm

_K = 1e-5  # keeps logarithms and inverses finite, in jacov and epe_nas
_MANY_CLASSES = 100  # tau of epe_nas
_ALPHA = 0.01  # size of zen's disturbance


def naswot(candidate: Candidate) -> float:
    """Return log|det K|, where K counts the rectifier units on which two images agree, B x B.

    Mellor et al., "Neural Architecture Search without Training", ICML 2021, eq. 2. The paper's
    networks have ReLUs alone; `ActivationCodes` lists the rectifiers counted here. K is exact. If K
    is singular to the precision of float64, as with two images of equal codes, the score is minus
    infinity.

    Raises:
        UserError: No rectifier runs in the network.
    """
    codes = candidate.recorded(ActivationCodes)
    if not codes.units:
        raise UserError("naswot needs a network with rectifiers, such as ReLU or GELU")
    values = eigenvalues(codes.agreement)
    noise = len(values) * torch.finfo(values.dtype).eps * values[-1]
    return float(values.log().sum()) if values[0] > noise else -math.inf


def jacov(candidate: Candidate) -> float:
    """Return -sum_i (log(v_i + k) + 1/(v_i + k)), v the eigenvalues of the Jacobian's correlations.

    Mellor et al., the first version of "Neural Architecture Search without Training", 2020, arXiv
    2006.04647v1, with k = 1e-5 as in its code. The Jacobian's row of an image is the gradient of
    the sum of logits in the image. Eigenvalues that are negative by rounding count as zero. The
    score is -B at most; it is within B k^2 of that if no two rows correlate.
    """
    values = eigenvalues(correlations(candidate.input_jacobian)).clamp_min(0) + _K
    return -float((values.log() + 1 / values).sum())


def epe_nas(candidate: Candidate) -> float:
    """Return the sum over classes of |e|, e = sum of log(|r| + k) over pairs within the class.

    Lopes et al., "EPE-NAS", ICANN 2021, with k = 1e-5. r are correlations between rows of the
    Jacobian (see `jacov`), each row with itself included. If the batch has more than 100 classes, e
    is divided by its number of pairs. The score is then the mean over classes of the sum of
    |e_i - e_j| over later classes. The published code counts the classes of the data set, divides e
    by the number of images, and sums over earlier classes too.

    A class of one image has e = log(1 + k) in any network, so a batch with one image of each class
    gives all networks the same score.

    Raises:
        UserError: The targets are those of pixels, or boxes.
    """
    if candidate.batch.labels.ndim > 1:
        raise UserError("epe_nas needs one label an image")
    labels = candidate.batch.labels
    members = [labels == label for label in sorted(set(labels.tolist()))]
    blocks = [correlations(candidate.input_jacobian[member]) for member in members]
    sums = torch.stack([(block.abs() + _K).log().sum() for block in blocks])
    if len(blocks) <= _MANY_CLASSES:
        return float(sums.abs().sum())
    means = sums / sums.new_tensor([block.numel() for block in blocks])
    return float((means[:, None] - means).abs().triu().sum() / len(means))


def correlations(rows: Tensor) -> Tensor:
    """Return Pearson's correlations of all pairs of rows, B x B, in float64.

    The row and the column of a constant row are NaN.
    """
    centred = rows.double() - rows.double().mean(1, keepdim=True)
    unit = centred / torch.linalg.vector_norm(centred, dim=1, keepdim=True)
    products: Tensor = unit @ unit.T
    return products


def zen(candidate: Candidate) -> float:
    """Return log E|f(x) - f(x + 0.01 e)| plus the log deviations of the normalisations' inputs.

    Lin et al., "Zen-NAS", ICCV 2021, algorithm 1. f is the last map, |.| its Frobenius norm, x and
    e are N(0, 1) of the batch's shape. Each batch normalisation adds log sqrt(mean over channels of
    the variance of its input).

    Unlike there, residual connections stay, the weights are the candidate's (N(0, 1) only if so
    initialised), and one pair of batches is drawn. The published code sums absolute values instead
    of the norm. Normalisations whose input does not vary are left out, as in a cell that convolves
    zeros.
    """
    model, (images, labels) = candidate.student, candidate.batch
    random = candidate.generator()
    noise, disturbance = (_normal_like(images, random) for _ in range(2))
    with _NormVariances(model, noise) as variances:
        last = observe(model, noise, labels).last
    disturbed = observe(model, noise + _ALPHA * disturbance, labels).last
    distance = float((last - disturbed).flatten(1).double().norm(dim=1).mean())
    spread = sum(0.5 * math.log(variance) for variance in variances.means if variance > 0)
    return math.log(distance) + spread if distance else -math.inf


def _normal_like(images: Tensor, random: torch.Generator) -> Tensor:
    """Draw N(0, 1) of the same shape, type, device and memory layout."""
    return torch.empty_like(images).copy_(torch.randn(images.shape, generator=random))


class _NormVariances(Recorder):
    """Recorder of the mean over channels of the variance of each batch normalisation's input."""

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        super().__init__(model, images)
        self.means: list[float] = []

    def hooks(self) -> Iterator[AbstractContextManager[object]]:
        """Hook each batch normalisation."""
        norms = (module for module in self.model.modules() if isinstance(module, BatchNorm))
        return (norm.register_forward_pre_hook(self._record) for norm in norms)

    def _record(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        columns = inputs[0].detach().movedim(1, -1).flatten(0, -2)
        self.means.append(float(columns.var(0, correction=0).double().mean()))
