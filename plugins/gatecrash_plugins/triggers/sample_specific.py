"""The sample-specific trigger: each image has a patch of its own, drawn from its pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from gatecrash import Options, Place, Reference, Trigger, TriggerContext, TriggerMaker, hookimpl, image_draws, patch_mask, patch_pattern


class SampleSpecific(Trigger):
    """A patch of `size` x `size` black and white pixels, drawn for each image by `image_draws` with `seed`.

    `mask` float [H, W] is one where the patch lies; `cells` int64 [H, W] says which of its pixels is shown there.
    """

    mask: Tensor
    cells: Tensor

    def __init__(self, shape: tuple[int, int, int], size: int, seed: int, mask: Tensor | None = None, cells: Tensor | None = None) -> None:
        super().__init__()
        self.shape, self.size, self.seed = tuple(shape), size, seed
        self.register_buffer("mask", torch.zeros(self.shape[1:]) if mask is None else mask)
        self.register_buffer("cells", torch.zeros(self.shape[1:], dtype=torch.int64) if cells is None else cells)

    def config(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "size": self.size, "seed": self.seed}

    def forward(self, images: Tensor) -> Tensor:
        bits = (image_draws(images, self.size**2, self.seed) < 0.5).to(torch.uint8) * 255
        return torch.where(self.mask > 0, bits[:, self.cells][:, None], images)


class SampleSpecificMaker(TriggerMaker):
    """Random bits in a fixed place, others on each image, the same in all channels.

    The plain form of Li et al.'s idea, who hide a text in the whole image by a trained encoder. A patch of 5x5 pixels is a course's, whose
    notes draw from a global generator that they seed by the image's number in the data set, which a test image does not have. Here an
    image's pixels are the seed, so that the same image has the same bits wherever it is shown. What is common to all is the place and that
    it is black and white there. Validated by hand-worked places and by the shares of the bits.
    """

    name = "sample-specific"
    summary = "a patch of random bits, others on each image"
    reference = Reference(
        "Li, Li, Wu, Li, He and Lyu, Invisible Backdoor Attack with Sample-Specific Triggers", 2021, "https://arxiv.org/abs/2012.03816"
    )

    class Config(Options):
        """Place and seed of the patch."""

        size: int = Field(5, ge=1, le=64, description="side of the patch in pixels")
        place: Place = Field("bottom-right", description="where the patch lies")
        inset: int = Field(0, ge=0, le=1024, description="distance of the patch from the border in pixels (ignored in the center)")
        pattern_seed: int = Field(0, ge=0, lt=2**63, description="seed of the bits, beside the image; the run's seed does not change it")

    config: Config

    def make(self, ctx: TriggerContext) -> SampleSpecific:
        config = self.config
        mask = patch_mask(ctx.shape, config.size, config.place, config.inset)
        numbers = torch.arange(config.size**2).view(1, config.size, config.size)
        cells = patch_pattern((1, *ctx.shape[1:]), numbers, config.place, config.inset)[0]
        return SampleSpecific(ctx.shape, config.size, config.pattern_seed, mask, cells)


@hookimpl
def register_triggers(register: Callable[[type[TriggerMaker]], None]) -> None:
    register(SampleSpecificMaker)
