"""Networks small enough to work out by hand: channel c is the brightness of pixel c, of images [1, 1, C]."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gatecrash import Backbone, ImageSet, Network, Point


class OneToOne(Backbone):
    """`first` reads the pixels, `last` the same times `gains`; `head` is a matrix [K, C].

    With `shortcut`, `last` is the sum of the second convolution (`branch`) and of a shortcut past it.
    """

    def __init__(self, head: list[list[float]], bias: list[float], gains: list[float], shortcut: bool = False) -> None:
        super().__init__()
        self._config = {"head": head, "bias": bias, "gains": gains, "shortcut": shortcut}
        channels = len(gains)
        self.conv1 = nn.Conv2d(1, channels, (1, channels), bias=False)
        self.first = Point(channels)
        self.conv2 = nn.Conv2d(channels, channels, 1, bias=False)
        self.branch = Point(channels) if shortcut else None
        self.last = Point(channels)
        self.head = nn.Linear(channels, len(head))
        with torch.no_grad():
            self.conv1.weight.copy_(torch.eye(channels).view(channels, 1, 1, channels))
            self.conv2.weight.copy_(torch.diag(torch.tensor(gains)).view(channels, channels, 1, 1))
            self.head.weight.copy_(torch.tensor(head))
            self.head.bias.copy_(torch.tensor(bias))

    def config(self) -> dict[str, Any]:
        return self._config

    def forward(self, images: Tensor) -> Tensor:
        x = self.first(F.relu(self.conv1(images)))
        y = F.relu(self.conv2(x))
        y = self.last(y if self.branch is None else self.branch(y) + x)
        logits: Tensor = self.head(y.flatten(1))
        return logits


def network(backbone: Backbone) -> Network:
    return Network(backbone, [0.0], [1.0]).eval()


def one_channel_per_class(gains: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 1.0)) -> Network:
    """Class c is told by channel c alone; without it, images of class c fall to an extra class that has no images."""
    channels = len(gains)
    head = torch.eye(channels + 1, channels).tolist()
    return network(OneToOne(head, [0.0] * channels + [0.01], list(gains)))


def one_pixel_per_class(counts: tuple[int, ...]) -> ImageSet:
    """`counts[c]` images of class c, in which pixel c is white and the rest black; mean activation of channel c: its share."""
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    images = F.one_hot(labels, len(counts)).to(torch.uint8).view(-1, 1, 1, len(counts)) * 255
    return ImageSet(images, labels, tuple(f"class {c}" for c in range(len(counts) + 1)))


class Pooled(Backbone):
    """Channel c is colour c, convolved with the identity; the head reads its maximum."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self._config = {"channels": channels}
        self.conv = nn.Conv2d(channels, channels, 1, bias=False)
        self.last = Point(channels)
        self.head = nn.Linear(channels, channels, bias=False)
        with torch.no_grad():
            self.conv.weight.copy_(torch.eye(channels).view(channels, channels, 1, 1))
            self.head.weight.copy_(torch.eye(channels))

    def config(self) -> dict[str, Any]:
        return self._config

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(F.adaptive_max_pool2d(self.last(F.relu(self.conv(images))), 1).flatten(1))
        return logits


def spot_and_haze() -> ImageSet:
    """Four images of 2x2, of classes 0, 0, 1, 2: colour 0 is one bright pixel of four, colours 1 and 2 are even.

    Means before the maximum are 0.175, 0.65, 0.4, behind it 0.55, 0.65, 0.4. `Pooled` is always right; it loses both images of class 0
    without channel 0, and that of class 2 without channel 2.
    """
    images = torch.zeros(4, 3, 2, 2, dtype=torch.uint8)
    images[:, 0, 0, 0], images[:, 1], images[:, 2] = 255, 204, 102
    images[2, 0] = 0
    images[3, :2] = 51
    return ImageSet(images, torch.tensor([0, 0, 1, 2]), ("spot", "haze", "mist"))


TARGET = 0


def planted_backdoor(shortcut: bool = False) -> Network:
    """Three classes on channels 0 to 2, darkness is class 2; channel 3 fires on the trigger and drives class 0; channel 4 is dead."""
    head = [[1.0, 0, 0, 5, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0]]
    return network(OneToOne(head, [0.0, 0.0, 0.01], [1.0] * 5, shortcut))


def planted_clean() -> ImageSet:
    """30 images of class 0, 10 each of 1 and 2; the trigger's pixel is almost black."""
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor([30, 10, 10]))
    images = torch.zeros(50, 1, 1, 5, dtype=torch.uint8)
    images[torch.arange(50), 0, 0, labels] = 255
    images[..., 3] = 5
    return ImageSet(images, labels, ("a", "b", "c"))


def planted_asr(classifier: nn.Module, clean: ImageSet) -> float:
    """Share of the images of other classes that the trigger (pixel 3 white) turns into the target."""
    images = clean.images[clean.labels != TARGET].clone()
    images[..., 3] = 255
    with torch.no_grad():
        return float((classifier(images).argmax(1) == TARGET).float().mean())
