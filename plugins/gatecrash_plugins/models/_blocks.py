"""Building blocks that the shipped models share."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from gatecrash import Point


class ConvBlock(nn.Module):
    """3x3 convolution, BatchNorm, ReLU, and the point where its channels can be switched off."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.point = Point(channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.point(F.relu(self.norm(self.conv(x))))
        return out
