"""The Trigger contract: what is done to an image."""

from __future__ import annotations

import torch
from torch import Tensor

from gatecrash.contracts.portable import Portable


class Trigger(Portable):
    """uint8 [N, C, H, W] -> uint8 [N, C, H, W]; row i depends on row i only, whatever the batch and its order."""

    def forward(self, images: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} defines no forward()")  # pragma: no cover - abstract


class FloatTrigger(Trigger):
    """A trigger that is computed in float: a subclass defines `transform`, through which gradients flow.

    The uint8 images of `forward` are rounded from it, never truncated: a `transform` that changes nothing gives equal bytes.
    """

    def transform(self, images: Tensor) -> Tensor:
        """float [N, C, H, W] in [0, 1] -> the same; what lies outside [0, 1] is clipped."""
        raise NotImplementedError(f"{type(self).__name__} defines no transform()")  # pragma: no cover - abstract

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return (self.transform(images / 255) * 255).round_().clamp_(0, 255).to(torch.uint8)
