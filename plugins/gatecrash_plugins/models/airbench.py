"""Jordan's net for CIFAR-10 in few epochs: early pooling, a start near the identity, a first layer that whitens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from gatecrash import Backbone, Model, Options, Point, Reference, hookimpl

PATCH = 2
"""Side of the patches that the first layer whitens (section 3.2)."""

EPSILON = 5e-4
"""Added to the variances before their square root, so that directions of noise are not blown up (section 3.2)."""

HEAD_SCALE = 1 / 9
"""The published scale of the logits, applied to the head's input instead: logits stay `head(features)`."""


Channels = Annotated[int, Field(ge=1, le=4096)]


class Block(nn.Module):
    """3x3 convolution that starts as the identity (section 3.3), pooling on request, BatchNorm with its scale fixed to 1, GELU, point."""

    def __init__(self, channels_in: int, channels: int, *, pool: bool) -> None:
        super().__init__()
        self.pool = pool
        self.conv = nn.Conv2d(channels_in, channels, 3, padding=1, bias=False)
        nn.init.dirac_(self.conv.weight.data[:channels_in])
        self.norm = nn.BatchNorm2d(channels, momentum=0.4)
        self.norm.weight.requires_grad_(False)
        self.point = Point(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        out: Tensor = self.point(F.gelu(self.norm(F.max_pool2d(x, 2) if self.pool else x)))
        return out


class AirbenchBackbone(Backbone):
    """A whitening 2x2 convolution, then three groups of two convolutions; the first of each pools by two."""

    stages = ("groups.1.point", "groups.3.point", "groups.5.point")

    def __init__(self, num_classes: int, channels: int, widths: tuple[int, int, int]) -> None:
        super().__init__()
        self._config = {"num_classes": num_classes, "channels": channels, "widths": list(widths)}
        whitened = 2 * channels * PATCH**2
        self.stem = nn.Conv2d(channels, whitened, PATCH)
        self.stem.weight.requires_grad_(False)
        self.point = Point(whitened)
        blocks: list[Block] = []
        for before, width in zip((whitened, *widths), widths, strict=False):
            blocks += [Block(before, width, pool=True), Block(width, width, pool=False)]
        self.groups = nn.Sequential(*blocks)
        self.head = nn.Linear(widths[-1], num_classes, bias=False)

    def config(self) -> dict[str, Any]:
        return self._config

    @torch.no_grad()
    def start_from(self, images: Tensor) -> None:
        """The first layer's filters: the patches' principal directions over the root of their variance, and the same negated."""
        patches = images.double().unfold(2, PATCH, 1).unfold(3, PATCH, 1).movedim(1, 3).flatten(3).flatten(0, 2)
        variances, directions = torch.linalg.eigh(patches.T @ patches / len(patches))
        # An eigenvector's sign is arbitrary: the largest entry is made positive, so that the same images give the same filters.
        signs = directions.gather(0, directions.abs().argmax(0, keepdim=True)).sign()
        filters = (directions * signs / (variances + EPSILON).sqrt()).T.flip(0).unflatten(1, self.stem.weight.shape[1:])
        self.stem.weight.copy_(torch.cat([filters, -filters]))

    def forward(self, images: Tensor) -> Tensor:
        x = self.groups(self.point(F.gelu(self.stem(images))))
        logits: Tensor = self.head(F.adaptive_max_pool2d(x, 1).flatten(1) * HEAD_SCALE)
        return logits


class Airbench(Model):
    """airbench94's net, 2.0M parameters and 0.12 G multiply-adds on 32x32; made for the recipe of the same name.

    Differs from the published code: the first layer's bias learns to the end (there for three epochs), BatchNorm's epsilon is torch's, and
    nothing is averaged over views of a test image.
    """

    name = "airbench"
    summary = "whitening first layer, early pooling, start near the identity: most accuracy for the time on CIFAR-size images"
    reference = Reference("Jordan, 94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024, "https://arxiv.org/abs/2404.00498")
    min_size = 9

    class Config(Options):
        """Widths."""

        widths: tuple[Channels, Channels, Channels] = Field((64, 256, 256), description="channels of the three groups")

    config: Config

    def build(self, num_classes: int, shape: tuple[int, int, int]) -> Backbone:
        self.check(shape)
        return AirbenchBackbone(num_classes, shape[0], self.config.widths)


@hookimpl
def register_models(register: Callable[[type[Model]], None]) -> None:
    register(Airbench)
