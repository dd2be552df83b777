"""A small convolutional net for small images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from gatecrash import Backbone, Model, Options, hookimpl
from gatecrash_plugins.models._blocks import ConvBlock


class SmallCnnBackbone(Backbone):
    """Three times convolution-BatchNorm-ReLU-maxpool (`width`, 2 `width`, 4 `width` channels) and a linear head on the flattened map."""

    stages = ("block1.point", "block2.point", "block3.point")

    def __init__(self, num_classes: int, shape: tuple[int, int, int], width: int) -> None:
        super().__init__()
        self._config = {"num_classes": num_classes, "shape": list(shape), "width": width}
        channels, height, side = shape
        self.block1 = ConvBlock(channels, width)
        self.block2 = ConvBlock(width, 2 * width)
        self.block3 = ConvBlock(2 * width, 4 * width)
        self.head = nn.Linear(4 * width * (height // 8) * (side // 8), num_classes)

    def config(self) -> dict[str, Any]:
        return self._config

    def forward(self, images: Tensor) -> Tensor:
        x = images
        for block in (self.block1, self.block2, self.block3):
            x = F.max_pool2d(block(x), 2)
        logits: Tensor = self.head(x.flatten(1))
        return logits


class SmallCnn(Model):
    """A net that trains in seconds on 8 to 32 pixels.

    The head sees the flattened map, not its mean: a head behind global pooling hardly learns a clean-label backdoor on images this small.
    """

    name = "small-cnn"
    summary = "three convolutions and a flattening head, for images of 8 to 32 pixels"
    min_size = 8
    max_size = 32

    class Config(Options):
        """Width."""

        width: int = Field(16, ge=1, le=512, description="channels of the first convolution; the next ones have 2 and 4 times as many")

    config: Config

    def build(self, num_classes: int, shape: tuple[int, int, int]) -> Backbone:
        self.check(shape)
        return SmallCnnBackbone(num_classes, shape, self.config.width)


@hookimpl
def register_models(register: Callable[[type[Model]], None]) -> None:
    register(SmallCnn)
