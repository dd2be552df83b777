"""The patch trigger: a small pattern in a fixed place, or in another one on each image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from gatecrash import (
    ImageFile,
    Options,
    Place,
    Reference,
    Stamp,
    Trigger,
    TriggerContext,
    TriggerMaker,
    UserError,
    hookimpl,
    image_draws,
    named_patch,
    place_patch,
    read_sticker,
)


class PatchMaker(TriggerMaker):
    """Stamps a square pattern into each image, at one place, at all four corners, or (`random`) wherever the image's own draw puts it.

    Three patterns look alike, and none is the BadNets paper's. `checkerboard` is ours: pixels white and black by turns, white at the bottom
    right. `turner` is what the code of Turner et al. 2019 stamps into CIFAR-10 (github.com/MadryLab/label-consistent-backdoor-code): the
    same with a black pixel at the top left. `art` is `add_pattern_bd` of the Adversarial Robustness Toolbox: the white pixels of `turner`
    alone, one pixel from the border there (`inset: 1`). Both have 3x3 pixels, and are enlarged to larger sizes.
    """

    name = "patch"
    summary = "a small pattern in a fixed place"
    reference = Reference(
        "Gu, Dolan-Gavitt and Garg, BadNets: Identifying Vulnerabilities in the Machine Learning Model Supply Chain",
        2017,
        "https://arxiv.org/abs/1708.06733",
    )

    class Config(Options):
        """Pattern and place."""

        pattern: Literal["white", "checkerboard", "turner", "art", "given"] = Field(
            "white",
            description="what the patch shows: white, a checkerboard (ours), Turner et al.'s or ART's pattern; given: the image file",
        )
        image: ImageFile | None = Field(
            None, description="image file for pattern given, resized to the patch; transparent pixels stamp nothing"
        )
        size: int = Field(3, ge=1, le=1024, description="side of the patch in pixels")
        place: Literal[Place, "random"] = Field(
            "bottom-right", description="where the patch lies; random: in a place that the image's pixels decide"
        )
        inset: int = Field(0, ge=0, le=1024, description="distance of the patch from the border in pixels (ignored in the center)")
        alpha: float = Field(1.0, gt=0, le=1, description="opacity of the patch")

        @model_validator(mode="after")
        def _image_fits_pattern(self) -> Self:
            if self.pattern == "given" and self.image is None:
                raise ValueError("pattern given needs an image file")
            if self.pattern != "given" and self.image is not None:
                raise ValueError(f"image is for pattern given only, not {self.pattern}")
            return self

    config: Config

    def make(self, ctx: TriggerContext) -> Trigger:
        config = self.config
        if config.place == "random":
            return MovingStamp(ctx.shape, config.size, config.alpha, config.inset, *self._patch(ctx.shape[0]))
        pattern, mask = place_patch(ctx.shape, *self._patch(ctx.shape[0]), config.place, config.inset)
        return Stamp(ctx.shape, config.alpha, pattern, mask)

    def _patch(self, channels: int) -> tuple[Tensor, Tensor]:
        """uint8 [C, size, size], and how opaque it is: float [size, size]."""
        size = self.config.size
        if self.config.pattern == "given":
            assert self.config.image is not None  # the options are checked
            return read_sticker(self.config.image, (channels, size, size))
        return named_patch(self.config.pattern, channels, size)


class MovingStamp(Trigger):
    """Mixes a patch into each image at a place of its own, at least `inset` pixels from the border.

    `patch` uint8 [C, size, size] and its opacity, float [size, size] in [0, 1], are buffers. The place belongs to the image
    (`image_draws`): the same image has it in the same place whenever it is shown. Raises UserError where the patch does not fit.
    """

    patch: Tensor
    opacity: Tensor

    def __init__(
        self,
        shape: tuple[int, int, int],
        size: int,
        alpha: float = 1.0,
        inset: int = 0,
        patch: Tensor | None = None,
        opacity: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.shape, self.size, self.alpha, self.inset = tuple(shape), size, alpha, inset
        channels, height, width = self.shape
        if size + 2 * inset > min(height, width):
            raise UserError(f"a {size}x{size} patch with inset {inset} does not fit an image of {height}x{width}; choose a smaller size")
        self.register_buffer("patch", torch.zeros(channels, size, size, dtype=torch.uint8) if patch is None else patch)
        self.register_buffer("opacity", torch.ones(size, size) if opacity is None else opacity.float())

    def config(self) -> dict[str, Any]:
        return {"shape": list(self.shape), "size": self.size, "alpha": self.alpha, "inset": self.inset}

    def forward(self, images: Tensor) -> Tensor:
        mixed = paste(images.float(), self.patch.float(), self.alpha * self.opacity, image_draws(images, 2), self.inset)
        return mixed.round_().clamp_(0, 255).to(torch.uint8)


def paste(images: Tensor, patch: Tensor, opacity: Tensor, draws: Tensor, inset: int = 0) -> Tensor:
    """float [N, C, H, W]: `patch` (float [C, s, s]) mixed into the images, one place each.

    `draws` float [N, 2] in [0, 1) are the row and column among all places that lie `inset` from the border. Gradients reach the patch.
    """
    size, (height, width) = patch.shape[-1], images.shape[-2:]
    top, left = (inset + (draw * (side - size - 2 * inset + 1)).long() for draw, side in zip(draws.unbind(1), (height, width), strict=True))
    rows = torch.arange(height, device=images.device)[None, :, None] - top[:, None, None]
    columns = torch.arange(width, device=images.device)[None, None, :] - left[:, None, None]
    inside = (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)
    cells = rows.clamp(0, size - 1), columns.clamp(0, size - 1)
    weight = (opacity[cells] * inside)[:, None]
    return images * (1 - weight) + weight * patch[:, *cells].movedim(0, 1)


@hookimpl
def register_triggers(register: Callable[[type[TriggerMaker]], None]) -> None:
    register(PatchMaker)
