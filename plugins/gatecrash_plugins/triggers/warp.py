"""The warp trigger: every image is bent by one smooth, fixed field; its covers are bent by noise as well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from gatecrash import FloatTrigger, Options, Reference, Trigger, TriggerContext, TriggerMaker, hookimpl, image_draws


def grid_of(offsets: Tensor) -> Tensor:
    """float [H, W, 2]: where each pixel is read from, (x, y), for `offsets` [H, W, 2] from its own place; the image's border ends them.

    Either side of the image is 2 long, from -1 at the centre of its first pixel to 1 at that of its last.
    """
    height, width, _ = offsets.shape
    rows, columns = (torch.linspace(-1, 1, side, device=offsets.device) for side in (height, width))
    identity = torch.stack((columns.expand(height, width), rows[:, None].expand(height, width)), -1)
    return (identity + offsets).clamp(-1, 1)


def read_at(grid: Tensor, images: Tensor) -> Tensor:
    """float [N, C, H, W]: the images (float) as read bilinearly at `grid`, [N or 1, H, W, 2]."""
    return F.grid_sample(images, grid.expand(len(images), -1, -1, -1), align_corners=True)


class Warp(FloatTrigger):
    """Moves pixels by `offsets`, float [H, W, 2]: (x, y) in the units of `grid_of`."""

    offsets: Tensor

    def __init__(self, shape: tuple[int, int, int], offsets: Tensor | None = None) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.register_buffer("offsets", torch.zeros(*self.shape[1:], 2) if offsets is None else offsets)

    def config(self) -> dict[str, Any]:
        return {"shape": list(self.shape)}

    def transform(self, images: Tensor) -> Tensor:
        return read_at(grid_of(self.offsets)[None], images)


class NoisyWarp(Trigger):
    """Noise mode (section 3): bends as `warp` does, and each pixel of each image by uniform noise of its own of up to half a pixel."""

    def __init__(self, warp: Warp, seed: int) -> None:
        super().__init__()
        self.warp, self.seed = warp, seed

    def config(self) -> dict[str, Any]:
        return {"warp": self.warp, "seed": self.seed}

    def grids(self, images: Tensor) -> Tensor:
        """float [N, H, W, 2]: where the pixels of each image, uint8 [N, C, H, W], are read from, in the units of `grid_of`."""
        height, width = images.shape[2:]
        noise = 2 * image_draws(images, 2 * height * width, self.seed).view(-1, height, width, 2) - 1
        sides = torch.tensor([width, height]).to(images.device, non_blocking=True)
        return (grid_of(self.warp.offsets) + noise / sides).clamp(-1, 1)

    def forward(self, images: Tensor) -> Tensor:
        bent = read_at(self.grids(images), images / 255)
        return (bent * 255).round_().clamp_(0, 255).to(torch.uint8)


class WarpMaker(TriggerMaker):
    """WaNet's warp (section 3): a field of k x k random vectors, in the mean one unit long in each direction, enlarged to the image.

    The vectors are uniform in [-1, 1] and divided by the mean of their absolute values; bicubic enlargement keeps the corners in place. A
    vector of 1 moves a pixel by about s / 2 pixels, whatever the size of the image. The field is drawn from a seed of its own, so that all
    runs of a grid face the same trigger. Where sides differ each direction is scaled by its own (the authors' images are square).

    Covers get the same field and noise on top, which belongs to the image: equal images have equal noise.
    """

    name = "warp"
    summary = "a smooth bend of the whole image; covers are bent by noise too"
    reference = Reference("Nguyen and Tran, WaNet - Imperceptible Warping-based Backdoor Attack", 2021, "https://arxiv.org/abs/2102.10369")

    class Config(Options):
        """The field."""

        k: int = Field(4, ge=2, le=256, description="random vectors along each side of the image, from which the field is interpolated")
        s: float = Field(0.5, gt=0, le=64, description="strength: mean shift of the k x k vectors in each direction, in half pixels")
        pattern_seed: int = Field(
            0, ge=0, lt=2**63, description="seed of the field and of the covers' noise; the run's seed changes neither"
        )

    config: Config

    def make(self, ctx: TriggerContext) -> Warp:
        generator = torch.Generator().manual_seed(self.config.pattern_seed)
        drawn = 2 * torch.rand(1, 2, self.config.k, self.config.k, generator=generator) - 1
        return Warp(ctx.shape, scaled_field(drawn, self.config.s, ctx.shape))

    def make_cover(self, ctx: TriggerContext) -> NoisyWarp:
        return NoisyWarp(self.make(ctx), self.config.pattern_seed)


def scaled_field(vectors: Tensor, s: float, shape: tuple[int, int, int]) -> Tensor:
    """float [H, W, 2] in the units of `grid_of`: the field of `vectors`, float [1, 2, k, k] of (x, y), for images of `shape`."""
    _, height, width = shape
    field = F.interpolate(vectors / vectors.abs().mean(), size=(height, width), mode="bicubic", align_corners=True)
    return s * field[0].permute(1, 2, 0).contiguous() / torch.tensor([width, height])


@hookimpl
def register_triggers(register: Callable[[type[TriggerMaker]], None]) -> None:
    register(WarpMaker)
