"""The patch trigger: a small pattern in a fixed place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Self

from pydantic import Field, model_validator
from torch import Tensor

from gatecrash import (
    ImageFile,
    Options,
    Place,
    Reference,
    Stamp,
    TriggerContext,
    TriggerMaker,
    hookimpl,
    named_patch,
    place_patch,
    read_sticker,
)


class PatchMaker(TriggerMaker):
    """Stamps a square pattern into each image, at one place or at all four corners.

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
        place: Place = Field("bottom-right", description="where the patch lies")
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

    def make(self, ctx: TriggerContext) -> Stamp:
        config = self.config
        pattern, mask = place_patch(ctx.shape, *self._patch(ctx.shape[0]), config.place, config.inset)
        return Stamp(ctx.shape, config.alpha, pattern, mask)

    def _patch(self, channels: int) -> tuple[Tensor, Tensor]:
        """uint8 [C, size, size], and how opaque it is: float [size, size]."""
        size = self.config.size
        if self.config.pattern == "given":
            assert self.config.image is not None  # the options are checked
            return read_sticker(self.config.image, (channels, size, size))
        return named_patch(self.config.pattern, channels, size)


@hookimpl
def register_triggers(register: Callable[[type[TriggerMaker]], None]) -> None:
    register(PatchMaker)
