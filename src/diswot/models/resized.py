"""Networks that see images at their own size.

Letters: B images, K classes, S pixels a side.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import interpolate

from diswot.errors import UserError


class ResizedInput(nn.Module):
    """A network that takes images of any size, resized to its own size, S pixels a side.

    Raises:
        UserError: The size is below 1.
    """

    def __init__(self, model: nn.Module, size: int) -> None:
        super().__init__()
        if size < 1:
            raise UserError(f"images have at least 1 pixel a side, not {size}")
        self.model = model
        self.size = size

    def resize(self, images: Tensor) -> Tensor:
        """Return images, B x 3 x H x W, as B x 3 x S x S: bilinear, with anti-aliasing."""
        if images.shape[2:] == (self.size, self.size):
            return images
        size = self.size, self.size
        resized: Tensor = interpolate(images, size, mode="bilinear", antialias=True)
        return resized

    def forward(self, images: Tensor) -> Tensor:
        """Map images, B x 3 x H x W, to logits, B x K."""
        logits: Tensor = self.model(self.resize(images))
        return logits


def entered(model: nn.Module, images: Tensor) -> tuple[nn.Module, Tensor]:
    """Return the network inside a `ResizedInput` and the images that it sees, to be observed.

    Any other network comes back with the images as they are.
    """
    if isinstance(model, ResizedInput):
        return model.model, model.resize(images)
    return model, images


def without_resizing(model: nn.Module) -> nn.Module:
    """Return the network inside a `ResizedInput`, or any other network as it is."""
    return model.model if isinstance(model, ResizedInput) else model
