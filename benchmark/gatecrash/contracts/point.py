"""Named places in a backbone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gatecrash.errors import ContractError


class Point(nn.Module):
    """A named place in a backbone: the activation [N, C, ...] can be read there and channels can be switched off.

    The mask, float [C], multiplies the activation. Place a point where no shortcut carries the channel around it (after a residual sum, or
    at a convolution's output inside the branch), because there a mask of 0 switches the whole channel off.
    """

    mask: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.register_buffer("mask", torch.ones(channels))
        self.inserted = nn.ModuleList()
        """What `Network.insert` has put behind the mask, in this order."""
        self._open = True  # no channel is masked: the multiplication is skipped

    def forward(self, activation: Tensor) -> Tensor:
        if not self._open:
            activation = activation * self.mask.to(activation.dtype).view(-1, *[1] * (activation.ndim - 2))
        for module in self.inserted:
            activation = module(activation)
        return activation

    def set_mask(self, mask: Tensor) -> None:
        """Keep (1) or switch off (0) each channel; values between scale it."""
        if mask.shape != self.mask.shape:
            raise ContractError(f"mask must have shape {list(self.mask.shape)}; got {list(mask.shape)}")
        self.mask.copy_(mask)
        self._open = bool((self.mask == 1).all())

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._open = bool((self.mask == 1).all())
