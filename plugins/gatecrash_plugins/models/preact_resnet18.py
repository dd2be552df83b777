"""Pre-activation ResNet-18 with a CIFAR stem: the model of most published backdoor benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from gatecrash import Backbone, Model, Point, Reference, hookimpl


class PreActBlock(nn.Module):
    """BatchNorm-ReLU-convolution twice, and a shortcut.

    Points: `mid`, the activation between the convolutions; `branch`, after the second one; `out`, after the sum. A projecting shortcut
    starts behind the first activation.
    """

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.mid = Point(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.branch = Point(channels)
        self.projects = stride != 1 or channels_in != channels
        if self.projects:
            self.shortcut = nn.Sequential(nn.Conv2d(channels_in, channels, 1, stride=stride, bias=False))
        self.out = Point(channels)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn1(x))
        passed_by = self.shortcut(active) if self.projects else x
        inner = self.mid(F.relu(self.bn2(self.conv1(active))))
        out: Tensor = self.out(self.branch(self.conv2(inner)) + passed_by)
        return out


class PreActResNet18Backbone(Backbone):
    """Parameters are named as in the usual CIFAR implementations (`conv1`, `layer1.0.bn1`, ...), the final `linear` is `head`.

    Like those, and unlike the paper, it has no BatchNorm-ReLU between the last sum and the pooling, so features can be negative.
    """

    stages = ("layer1.1.out", "layer2.1.out", "layer3.1.out", "layer4.1.out")

    def __init__(self, num_classes: int, channels: int) -> None:
        super().__init__()
        self._config = {"num_classes": num_classes, "channels": channels}
        self.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        self.stem = Point(64)
        self.layer1 = nn.Sequential(PreActBlock(64, 64, 1), PreActBlock(64, 64, 1))
        self.layer2 = nn.Sequential(PreActBlock(64, 128, 2), PreActBlock(128, 128, 1))
        self.layer3 = nn.Sequential(PreActBlock(128, 256, 2), PreActBlock(256, 256, 1))
        self.layer4 = nn.Sequential(PreActBlock(256, 512, 2), PreActBlock(512, 512, 1))
        self.head = nn.Linear(512, num_classes)

    def config(self) -> dict[str, Any]:
        return self._config

    def forward(self, images: Tensor) -> Tensor:
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.stem(self.conv1(images))))))
        logits: Tensor = self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits


class PreActResNet18(Model):
    """He et al.'s pre-activation ResNet-18 with a 3x3 stem and no max-pooling, as BackdoorBench uses it; 11.17M parameters."""

    name = "preact-resnet18"
    summary = "pre-activation ResNet-18 with a CIFAR stem (3x3, no max-pool)"
    reference = Reference("He et al., Identity mappings in deep residual networks", 2016, "https://arxiv.org/abs/1603.05027")
    min_size = 8

    def build(self, num_classes: int, shape: tuple[int, int, int]) -> Backbone:
        self.check(shape)
        return PreActResNet18Backbone(num_classes, shape[0])


@hookimpl
def register_models(register: Callable[[type[Model]], None]) -> None:
    register(PreActResNet18)
