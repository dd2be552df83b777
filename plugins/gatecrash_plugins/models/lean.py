"""A lean residual net for CIFAR-size images: most of a ResNet-18's accuracy at a fraction of its cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from gatecrash import Backbone, Model, Options, Point, Reference, hookimpl
from gatecrash_plugins.models._blocks import ConvBlock

HEAD_SCALE = 0.125
"""Page's scale of the logits, applied to the head's input instead: logits stay `head(features)`."""


class Residual(nn.Module):
    """Two convolutions and a shortcut around them; a mask at the point after the sum switches the whole channel off."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvBlock(channels, channels)
        self.second = ConvBlock(channels, channels)
        self.point = Point(channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.point(x + self.second(self.first(x)))
        return out


class LeanBackbone(Backbone):
    """Channels 64-128-256-256 (times `width`), pooled by two after each of the last three, residual blocks after the second and fourth."""

    stages = ("conv2.point", "conv3.point", "conv4.point", "residual4.point")

    def __init__(self, num_classes: int, channels: int, width: float) -> None:
        super().__init__()
        self._config = {"num_classes": num_classes, "channels": channels, "width": width}
        c1, c2, c3, c4 = (max(1, round(width * base)) for base in (64, 128, 256, 256))
        self.stem = ConvBlock(channels, c1)
        self.conv2 = ConvBlock(c1, c2)
        self.residual2 = Residual(c2)
        self.conv3 = ConvBlock(c2, c3)
        self.conv4 = ConvBlock(c3, c4)
        self.residual4 = Residual(c4)
        self.head = nn.Linear(c4, num_classes)

    def config(self) -> dict[str, Any]:
        return self._config

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        x = self.residual2(F.max_pool2d(self.conv2(x), 2))
        x = F.max_pool2d(self.conv3(x), 2)
        x = self.residual4(F.max_pool2d(self.conv4(x), 2))
        logits: Tensor = self.head(F.adaptive_max_pool2d(x, 1).flatten(1) * HEAD_SCALE)
        return logits


class Lean(Model):
    """Eight convolutions, 2.4M parameters, 0.29 G multiply-adds on 32x32: a ResNet-9."""

    name = "lean"
    summary = "lean residual net of 2.4M parameters (ResNet-9 style) for CIFAR-size images"
    reference = Reference("Page, How to train your ResNet", 2018, "https://github.com/davidcpage/cifar10-fast")
    min_size = 8

    class Config(Options):
        """Width."""

        width: float = Field(1.0, gt=0, le=8, description="multiplies the channels 64-128-256-256")

    config: Config

    def build(self, num_classes: int, shape: tuple[int, int, int]) -> Backbone:
        self.check(shape)
        return LeanBackbone(num_classes, shape[0], self.config.width)


@hookimpl
def register_models(register: Callable[[type[Model]], None]) -> None:
    register(Lean)
