"""ResNet-20, the smallest of the ResNets for CIFAR."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from gatecrash import Backbone, Model, Point, Reference, hookimpl
from gatecrash_plugins.models.resnet18 import BasicBlock


class ResNet20Backbone(Backbone):
    """Three stages of three blocks with 16, 32 and 64 channels. A shortcut that changes the shape is a projection (the paper's
    option B)."""

    stages = ("layer1.2.out", "layer2.2.out", "layer3.2.out")

    def __init__(self, num_classes: int, channels: int) -> None:
        super().__init__()
        self._config = {"num_classes": num_classes, "channels": channels}
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.stem = Point(16)
        self.layer1 = nn.Sequential(BasicBlock(16, 16, 1), BasicBlock(16, 16, 1), BasicBlock(16, 16, 1))
        self.layer2 = nn.Sequential(BasicBlock(16, 32, 2), BasicBlock(32, 32, 1), BasicBlock(32, 32, 1))
        self.layer3 = nn.Sequential(BasicBlock(32, 64, 2), BasicBlock(64, 64, 1), BasicBlock(64, 64, 1))
        self.head = nn.Linear(64, num_classes)

    def config(self) -> dict[str, Any]:
        return self._config

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(F.relu(self.bn1(self.conv1(images))))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


class ResNet20(Model):
    """He et al.'s ResNet for CIFAR with n = 3 (section 4.2), with projection shortcuts; 0.27M parameters, 0.04 G multiply-adds on 32x32."""

    name = "resnet20"
    summary = "ResNet-20 for CIFAR-size images, 0.27M parameters"
    reference = Reference("He et al., Deep residual learning for image recognition", 2016, "https://arxiv.org/abs/1512.03385")
    min_size = 8

    def build(self, num_classes: int, shape: tuple[int, int, int]) -> Backbone:
        self.check(shape)
        return ResNet20Backbone(num_classes, shape[0])


@hookimpl
def register_models(register: Callable[[type[Model]], None]) -> None:
    register(ResNet20)
