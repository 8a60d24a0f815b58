"""The distance of the class activation maps.

Letters: B images, C channels, H x W positions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diswot.errors import UserError
from diswot.knowledge.adapters import on_one_grid
from diswot.knowledge.stages import at_least_float32, in_safe_range
from diswot.observation.functional import unit_rows
from diswot.observation.observe import Observation


def gradcam(teacher: Observation, student: Observation) -> Tensor:
    """Grad-CAM distance: the difference of the class activation maps of the images' targets.

    A map is ReLU(sum_k alpha_k A_k) on the last feature map. Both maps are averaged down to the
    smaller grid and scaled to unit length. The squared difference is summed over positions and
    averaged over images. Works for any widths and grids. The distance lies between 0 and 2.

    A map of zeros stays zero and counts 1 against any other. On a grid of one cell that is the only
    difference there can be. If the classifier does not read the last map, as with a class token
    after the last block, all maps are zero: name an earlier map in `layers["last"]`.

    Selvaraju et al., ICCV 2017, eq. 1 and 2. This is the semantic distance of the text of DisWOT,
    CVPR 2023, eq. 3 to 5; the published code compares class gradients (`semantic`).

    Raises:
        UserError: An observation has no `cam_weights`.
    """
    maps = (class_activation(seen).unsqueeze(1) for seen in (teacher, student))
    map_t, map_s = (unit_rows(each.flatten(1)) for each in on_one_grid(*maps))
    return (map_t - map_s).square().sum(1).mean()


def class_activation(observation: Observation) -> Tensor:
    """Return the Grad-CAM map of each image's target, up to a factor common to all images.

    Returns:
        B x H x W, at least 0.

    Raises:
        UserError: The observation has no `cam_weights`.
    """
    if observation.cam_weights is None:
        raise UserError(
            "gradcam needs one label an image, and weights of the maps: observe(..., cam=True)"
        )
    weights, maps = (
        in_safe_range(at_least_float32(values))
        for values in (observation.cam_weights, observation.last)
    )
    return torch.einsum("bc,bchw->bhw", weights, maps).relu()
