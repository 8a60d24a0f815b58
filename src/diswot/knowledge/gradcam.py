"""What the class activation maps know: where a network looks for the label."""

from __future__ import annotations

import torch
from torch import Tensor

from diswot.errors import UserError
from diswot.knowledge.adapters import pool
from diswot.knowledge.stages import single
from diswot.observation.functional import moderate, unit_rows
from diswot.observation.observe import Observation


def gradcam(teacher: Observation, student: Observation) -> Tensor:
    """Grad-CAM distance: the class activation maps of each sample's label, compared.

    Maps are ReLU(sum_k alpha_k A_k), Selvaraju et al., ICCV 2017, eq. 1 and 2, on the last
    feature map; both are averaged down to the smaller grid and scaled to unit length; squared
    difference, summed over positions, mean of the samples. This is the semantic metric as the
    text of DisWOT, CVPR 2023, has it (eq. 3 to 5), where the published code compares gradients of
    the classifier (`semantic`). Works for any widths and grids.

    A map that is zero everywhere stays zero and counts 1 against any other; on a grid of one cell
    that is all there is to compare. It is zero for every sample where the classifier does not
    look at the last map, as with a class token after the last block: name an earlier map in
    `layers["last"]`.

    Args:
        teacher: Its `last` and `cam_weights` are used.
        student: Likewise.

    Returns:
        A scalar between 0 and 2.

    Raises:
        UserError: The weights were not observed.
    """
    maps = class_activation(teacher), class_activation(student)
    grid = min(m.shape[1] for m in maps), min(m.shape[2] for m in maps)
    ours, theirs = (unit_rows(pool(m.unsqueeze(1), grid).flatten(1)) for m in maps)
    return (ours - theirs).square().sum(1).mean()


def class_activation(seen: Observation) -> Tensor:
    """Grad-CAM of each sample's label, B x H x W, up to a scale that all samples share."""
    if seen.cam_weights is None:
        raise UserError("gradcam needs weights of the maps, seen with observe(..., cam=True)")
    weights, maps = (moderate(single(values)) for values in (seen.cam_weights, seen.last))
    return torch.einsum("bc,bchw->bhw", weights, maps).relu()
