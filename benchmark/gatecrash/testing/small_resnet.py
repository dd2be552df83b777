"""The second model of the checks: unlike small-cnn in all that a plugin might take for granted."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gatecrash.contracts.classifier import Backbone
from gatecrash.contracts.model import Model
from gatecrash.contracts.point import Point

WIDTH = 12


class SmallResNetBackbone(Backbone):
    """Normalised and activated before each convolution, a shortcut around two of them, and a head behind an average (He et al. 2016b)."""

    stages = ("inner", "last")

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self._config = {"channels": channels, "num_classes": num_classes}
        self.stem = nn.Conv2d(channels, WIDTH, 3, stride=2, padding=1, bias=False)
        self.norm1, self.norm2, self.norm3 = (nn.BatchNorm2d(WIDTH) for _ in range(3))
        self.conv1, self.conv2 = (nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False) for _ in range(2))
        self.inner, self.last = Point(WIDTH), Point(WIDTH)
        self.head = nn.Linear(WIDTH, num_classes)

    def config(self) -> dict[str, Any]:
        return self._config

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        branch = self.inner(torch.relu(self.norm2(self.conv1(torch.relu(self.norm1(x))))))
        x = self.last(torch.relu(self.norm3(x + self.conv2(branch))))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


class SmallResNet(Model):
    """A residual network of one block, for the checks."""

    name = "checks-resnet"
    summary = "one pre-activation block behind an average"

    def build(self, num_classes: int, shape: tuple[int, int, int]) -> SmallResNetBackbone:
        return SmallResNetBackbone(shape[0], num_classes)
