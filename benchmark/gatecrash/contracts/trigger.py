"""The Trigger contract."""

from __future__ import annotations

from torch import Tensor

from gatecrash.contracts.portable import Portable


class Trigger(Portable):
    """uint8 [N, C, H, W] -> uint8 [N, C, H, W]; row i depends on row i only, whatever the batch and its order."""

    def forward(self, images: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} defines no forward()")  # pragma: no cover - abstract
