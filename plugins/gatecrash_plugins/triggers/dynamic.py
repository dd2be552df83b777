"""The dynamic trigger: a patch whose grey level depends on how bright the image is."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from gatecrash import Options, Place, Reference, Trigger, TriggerContext, TriggerMaker, hookimpl, patch_mask


class Dynamic(Trigger):
    """A patch of 1 on images with a mean below `low`, of 0 above `high`, else of 1 - mean; pixels and means count in [0, 1].

    `mask` float [H, W] is one where the patch lies.
    """

    mask: Tensor

    def __init__(self, shape: tuple[int, int, int], low: float, high: float, mask: Tensor | None = None) -> None:
        super().__init__()
        self.shape, self.low, self.high = tuple(shape), low, high
        self.register_buffer("mask", torch.zeros(self.shape[1:]) if mask is None else mask)

    def config(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "low": self.low, "high": self.high}

    def forward(self, images: Tensor) -> Tensor:
        means = images.flatten(1).long().sum(1) / (255 * math.prod(self.shape))  # whole numbers: the same in any batch
        values = torch.where(means < self.low, 1.0, torch.where(means > self.high, 0.0, 1 - means))
        grey = (255 * values).round().to(torch.uint8)
        return torch.where(self.mask > 0, grey[:, None, None, None], images)


class DynamicMaker(TriggerMaker):
    """A patch that stands out: white on dark images, black on bright ones, and in between the negative of the mean.

    Salem et al. draw or generate a dynamic trigger's pattern and place; that it depends on the mean is a course's, as are 5x5 pixels, .3
    and .7. On images of mean .5 the patch is as grey as the mean and hardly shows. Validated by hand-worked images.
    """

    name = "dynamic"
    summary = "a patch as bright as the image is dark"
    reference = Reference(
        "Salem, Wen, Backes, Ma and Zhang, Dynamic Backdoor Attacks Against Machine Learning Models",
        2022,
        "https://arxiv.org/abs/2003.03675",
    )

    class Config(Options):
        """Place of the patch, and which images are dark and bright."""

        size: int = Field(5, ge=1, le=1024, description="side of the patch in pixels")
        place: Place = Field("bottom-right", description="where the patch lies")
        inset: int = Field(0, ge=0, le=1024, description="distance of the patch from the border in pixels (ignored in the center)")
        low: float = Field(0.3, ge=0, le=1, description="mean pixel, of [0, 1], below which the patch is white")
        high: float = Field(0.7, ge=0, le=1, description="mean pixel, of [0, 1], above which the patch is black")

        @model_validator(mode="after")
        def _in_order(self) -> Self:
            if self.low > self.high:
                raise ValueError(f"low {self.low:g} is above high {self.high:g}")
            return self

    config: Config

    def make(self, ctx: TriggerContext) -> Dynamic:
        mask = patch_mask(ctx.shape, self.config.size, self.config.place, self.config.inset)
        return Dynamic(ctx.shape, self.config.low, self.config.high, mask)


@hookimpl
def register_triggers(register: Callable[[type[TriggerMaker]], None]) -> None:
    register(DynamicMaker)
