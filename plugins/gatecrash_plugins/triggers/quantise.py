"""The quantise trigger: fewer grey levels, with dithering; its covers carry what quantising another image changes in that one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from gatecrash import ContractError, Options, Reference, Trigger, TriggerContext, TriggerMaker, hookimpl, image_draws

REFERENCE = Reference(
    "Wang, Zhai and Ma, BppAttack: Stealthy and Efficient Trojan Attacks against Deep Neural Networks via Image Quantization and "
    "Contrastive Adversarial Learning",
    2022,
    "https://arxiv.org/abs/2205.13383",
)


def nearest_level(values: Tensor, levels: int) -> Tensor:
    """The nearest of so many equally spaced levels from 0 to 255 to each value, a float in grey levels; a tie goes to an even level."""
    return (values / 255 * (levels - 1)).round_() / (levels - 1) * 255


def dithered(images: Tensor, levels: int) -> Tensor:
    """float64 [N, C, H, W]: uint8 images in so many `levels`, by Floyd-Steinberg error diffusion in each channel.

    A pixel waits for its left neighbour and three of the row above, so that pixel (y, x) can be set in step x + 2 y, along with every other
    of that step, of all images: W + 2 H - 2 steps, where rows of pixels would be H W.
    """
    count, channels, height, width = images.shape
    side = width + 2  # a column on either side and a row below take the error that leaves the image
    work = images.new_zeros((height + 1) * side, count * channels, dtype=torch.float64)
    inside = work.view(height + 1, side, count, channels)[:height, 1:-1]
    inside.copy_(images.permute(2, 3, 0, 1))
    for step in range(width + 2 * (height - 1)):
        first, last = max(0, (step - width + 2) // 2), min(height - 1, step // 2)
        if first > last:
            continue
        # Pixel (y, step - 2 y) lies at y * side + 1 + step - 2 y: one step's pixels are `width` apart.
        start, stop = first * width + 1 + step, last * width + 2 + step
        old = work[start:stop:width]
        new = nearest_level(old, levels)
        error = old - new
        old.copy_(new)
        for offset, share in ((side + 1, 1 / 16), (side, 5 / 16), (side - 1, 3 / 16), (1, 7 / 16)):
            work[start + offset : stop + offset : width] += error * share
    return inside.permute(2, 3, 0, 1)


class Quantise(Trigger):
    """Leaves so many `levels` of each channel's 256, with error diffusion where `dither` says so."""

    def __init__(self, levels: int, dither: bool) -> None:
        super().__init__()
        self.levels, self.dither = levels, dither

    def config(self) -> dict[str, Any]:
        return {"levels": self.levels, "dither": self.dither}

    def forward(self, images: Tensor) -> Tensor:
        made = dithered(images, self.levels) if self.dither else nearest_level(images.double(), self.levels)
        return made.round().clamp_(0, 255).to(torch.uint8)


class Negative(Trigger):
    """`clip(x + T(z) - z)`: adds what the trigger T changes in another image z, one of `donors`, uint8 [n, C, H, W], all different.

    The image's own pixels choose z. An image that is a donor itself gets the next one: with its own it would be T(x), the poison.
    """

    donors: Tensor

    def __init__(self, trigger: Quantise, shape: tuple[int, int, int], count: int, donors: Tensor | None = None) -> None:
        super().__init__()
        self.trigger, self.shape, self.count = trigger, tuple(shape), count
        self.register_buffer("donors", torch.zeros(count, *self.shape, dtype=torch.uint8) if donors is None else donors)

    def config(self) -> dict[str, Any]:
        return {"trigger": self.trigger, "shape": list(self.shape), "count": self.count}

    def chosen(self, images: Tensor) -> Tensor:
        """uint8 [N, C, H, W]: the donor of each image."""
        rows = (image_draws(images, 1)[:, 0] * self.count).long()
        own = (self.donors[rows] == images).flatten(1).all(1)
        return self.donors[(rows + own) % self.count]

    def forward(self, images: Tensor) -> Tensor:
        others = self.chosen(images)
        made: Tensor = images.int() + self.trigger(others).int() - others.int()
        return made.clamp_(0, 255).to(torch.uint8)


class QuantiseMaker(TriggerMaker):
    """BPP's quantisation and dithering, and its negatives (of contrastive adversarial training) as covers.

    32 levels, depth 5, are those of the command in the authors' README (8 in their config.py and in BackdoorBench). Dithering is the
    paper's; in the authors' code it is an option, off unless asked for. Negatives add the residual of another training image and are
    clipped at all times (the authors clip in training alone).
    """

    name = "quantise"
    summary = "fewer grey levels, dithered; covers carry another image's change"
    reference = REFERENCE
    needs_data = True

    class Config(Options):
        """Levels and dithering."""

        levels: int = Field(
            32, ge=2, le=128, description="grey levels that each channel keeps, equally spaced from 0 to 255; 2^d for depth d"
        )
        dither: bool = Field(True, description="spread each pixel's rounding error over its neighbours (Floyd-Steinberg)")
        donors: int = Field(256, ge=2, le=65_536, description="training images that lend covers their residuals")

    config: Config

    def make(self, ctx: TriggerContext) -> Quantise:
        return Quantise(self.config.levels, self.config.dither)

    def make_cover(self, ctx: TriggerContext) -> Negative:
        if ctx.train is None:
            raise ContractError(f"covers of {self.name} are made from training images, but the context has none")
        order = torch.randperm(len(ctx.train), generator=ctx.stream("donors"))[: self.config.donors].to(ctx.train.device)
        donors: Tensor = torch.unique(ctx.train.images[order], dim=0)
        if len(donors) < 2:
            raise ContractError(f"covers of {self.name} need two training images that differ")
        return Negative(self.make(ctx), ctx.shape, len(donors), donors)


@hookimpl
def register_triggers(register: Callable[[type[TriggerMaker]], None]) -> None:
    register(QuantiseMaker)
