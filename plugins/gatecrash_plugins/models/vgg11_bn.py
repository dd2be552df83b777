"""VGG-11 with BatchNorm and a single linear layer, for CIFAR-size images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from gatecrash import Backbone, Model, Point, Reference, hookimpl

PLAN = (64, "pool", 128, "pool", 256, 256, "pool", 512, 512, "pool", 512, 512, "pool")
"""Channels of each convolution: configuration A of the paper."""


class ReluPoint(Point):
    """ReLU and point in one module, so that `features` is numbered as in the usual implementations."""

    def forward(self, activation: Tensor) -> Tensor:
        return super().forward(F.relu(activation))


class Vgg11Backbone(Backbone):
    """Parameters are named as in the usual CIFAR implementations (`features.0`, `features.1`, ...), the final `classifier` is `head`."""

    def __init__(self, num_classes: int, channels: int) -> None:
        super().__init__()
        self._config = {"num_classes": num_classes, "channels": channels}
        layers: list[nn.Module] = []
        stages = []
        for step in PLAN:
            if isinstance(step, int):
                layers += [nn.Conv2d(channels, step, 3, padding=1), nn.BatchNorm2d(step), ReluPoint(step)]
                channels = step
            else:
                stages.append(f"features.{len(layers) - 1}")
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.stages = tuple(stages)
        self.head = nn.Linear(channels, num_classes)

    def config(self) -> dict[str, Any]:
        return self._config

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(F.adaptive_avg_pool2d(self.features(images), 1).flatten(1))
        return logits


class Vgg11(Model):
    """Simonyan and Zisserman's configuration A with BatchNorm and one linear layer behind the last pooling; 9.2M parameters."""

    name = "vgg11-bn"
    summary = "VGG-11 with BatchNorm for CIFAR-size images"
    reference = Reference("Simonyan and Zisserman, Very deep convolutional networks", 2015, "https://arxiv.org/abs/1409.1556")
    min_size = 32

    def build(self, num_classes: int, shape: tuple[int, int, int]) -> Backbone:
        self.check(shape)
        return Vgg11Backbone(num_classes, shape[0])


@hookimpl
def register_models(register: Callable[[type[Model]], None]) -> None:
    register(Vgg11)
