"""A trigger that adds one fixed pattern to every image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gatecrash import FloatTrigger


class Noise(FloatTrigger):
    """`x + noise`, clipped to [0, 1] before it is rounded: a sum beyond white is white. `noise` float [C, H, W], of pixels in [0, 1]."""

    noise: Tensor

    def __init__(self, shape: tuple[int, int, int], noise: Tensor | None = None) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.register_buffer("noise", torch.zeros(self.shape) if noise is None else noise)

    def config(self) -> dict[str, Any]:
        return {"shape": list(self.shape)}

    def transform(self, images: Tensor) -> Tensor:
        return images + self.noise
