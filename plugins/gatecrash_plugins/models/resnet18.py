"""ResNet-18 with a CIFAR stem."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from gatecrash import Backbone, Model, Point, Reference, hookimpl


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut. Points: `mid` and `branch` after each convolution, `out` after the sum."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.mid = Point(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.branch = Point(channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != channels:
            self.shortcut = nn.Sequential(nn.Conv2d(channels_in, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels))
        self.out = Point(channels)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.mid(F.relu(self.bn1(self.conv1(x))))
        inner = self.branch(self.bn2(self.conv2(inner)))
        out: Tensor = self.out(F.relu(inner + self.shortcut(x)))
        return out


class ResNet18Backbone(Backbone):
    """Parameters are named as in the usual CIFAR implementations (`conv1`, `bn1`, `layer1.0.conv1`, ...), the final `linear` is `head`."""

    stages = ("layer1.1.out", "layer2.1.out", "layer3.1.out", "layer4.1.out")

    def __init__(self, num_classes: int, channels: int) -> None:
        super().__init__()
        self._config = {"num_classes": num_classes, "channels": channels}
        self.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.stem = Point(64)
        self.layer1 = nn.Sequential(BasicBlock(64, 64, 1), BasicBlock(64, 64, 1))
        self.layer2 = nn.Sequential(BasicBlock(64, 128, 2), BasicBlock(128, 128, 1))
        self.layer3 = nn.Sequential(BasicBlock(128, 256, 2), BasicBlock(256, 256, 1))
        self.layer4 = nn.Sequential(BasicBlock(256, 512, 2), BasicBlock(512, 512, 1))
        self.head = nn.Linear(512, num_classes)

    def config(self) -> dict[str, Any]:
        return self._config

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(F.relu(self.bn1(self.conv1(images))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


class ResNet18(Model):
    """He et al.'s ResNet-18 with a 3x3 stem and no max-pooling; 11.17M parameters."""

    name = "resnet18"
    summary = "ResNet-18 with a CIFAR stem (3x3, no max-pool)"
    reference = Reference("He et al., Deep residual learning for image recognition", 2016, "https://arxiv.org/abs/1512.03385")
    min_size = 8

    def build(self, num_classes: int, shape: tuple[int, int, int]) -> Backbone:
        self.check(shape)
        return ResNet18Backbone(num_classes, shape[0])


@hookimpl
def register_models(register: Callable[[type[Model]], None]) -> None:
    register(ResNet18)
